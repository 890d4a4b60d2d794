"""Decontamination against evaluation sets, by brute force on strings."""

import json
import pickle
import random

import pytest

from input_pipeline.cleaning.contamination import contamination
from input_pipeline.document import Counted, Document, Dropped

GONE = Dropped("contaminated")
WORDS = [f"word{i}" for i in range(2_000)]
CHARACTERS = [chr(0x4E00 + i) for i in range(2_000)]


@pytest.fixture
def evaluation(tmp_path):
  """(URI, {"en": text, "short": text, "tiny": text, "zh": text})."""
  rng = random.Random(0)
  texts = {
    "en": " ".join(rng.sample(WORDS, 40)),
    "short": " ".join(rng.sample(WORDS, 9)),
    "tiny": " ".join(rng.sample(WORDS, 7)),
    "zh": "".join(rng.sample(CHARACTERS, 60)),
  }
  path = tmp_path / "eval.jsonl"
  rows = [
    {"question": t, "label": i, "answer": ""}
    for i, t in enumerate(texts.values())
  ]
  path.write_text("\n".join(map(json.dumps, rows)))
  return f"jsonl:{path}", texts


def shares(a: list, b: list, n: int) -> bool:
  """Whether two lists have n neighbours in common."""
  grams = {tuple(a[i : i + n]) for i in range(len(a) - n + 1)}
  return any(tuple(b[i : i + n]) in grams for i in range(len(b) - n + 1))


def test_documents_drop_that_share_an_n_gram_and_no_others(evaluation):
  uri, texts = evaluation
  stage = contamination([uri])
  rng = random.Random(1)
  english, chinese = texts["en"].split(), list(texts["zh"])
  dropped = 0
  for i in range(200):
    take = rng.randint(8, 18)
    start = rng.randrange(40 - take)
    words = rng.sample(WORDS, 30)
    words[10:10] = english[start : start + take]
    text = " ".join(w.upper() + "," * (k % 3 == 0) for k, w in enumerate(words))
    found = stage(Document(str(i), text))
    assert (found == GONE) == shares(english, words, 13)
    take = rng.randint(15, 32)
    start = rng.randrange(60 - take)
    letters = rng.sample(CHARACTERS, 30)
    letters[7:7] = chinese[start : start + take]
    text = "".join(c + "，" * (k % 11 == 5) for k, c in enumerate(letters))
    found = stage(Document(str(i), text))
    assert (found == GONE) == shares(chinese, letters, 23)
    dropped += found == GONE
  assert 50 < dropped < 150


def test_a_shorter_example_counts_as_a_whole_from_eight_words_on(evaluation):
  uri, texts = evaluation
  stage = contamination([dict(source=uri, text_keys=["question"])])
  assert stage(Document("a", "x " + texts["short"] + " y")) == GONE
  cut_short = Document("b", " ".join(texts["short"].split()[:-1]))
  assert stage(cut_short) == cut_short
  tiny = Document("c", "x " + texts["tiny"] + " y")
  assert stage(tiny) == tiny


def test_a_span_is_cut_with_what_is_around_it(evaluation):
  uri, texts = evaluation
  stage = contamination([uri], "cut", window=20, shortest_piece=30)
  before, after = "a" * 100 + ".", "." + "b" * 100
  text = f"{before} {texts['en']} {after}"
  kept = f"{before[:-19]}\n{after[19:]}"
  document = Document("a", text, {"lang": "en"})
  expected = Counted(document._replace(text=kept), {"spans_cut": 1})
  assert stage(document) == expected
  # Nothing long enough stays.
  assert stage(Document("b", texts["en"])) == GONE
  # Eleven pieces are too many.
  for times, gone in ((9, False), (10, True)):
    text = before + f" {texts['short']} {'c' * 90}" * times
    found = stage(Document("c", text))
    assert found == GONE if gone else found.counts == {"spans_cut": times}


def test_spans_are_cut_of_chinese_too(evaluation):
  uri, texts = evaluation
  stage = contamination([uri], "cut", window=0, shortest_piece=1)
  text = "前。" + texts["zh"][:30] + "。后"
  assert stage(Document("a", text)).document.text == "前。\n。后"


def test_it_can_be_sent_to_another_machine(evaluation):
  uri, texts = evaluation
  stage = pickle.loads(pickle.dumps(contamination([uri])))
  assert stage(Document("a", texts["en"])) == GONE


def test_what_is_wrong_is_named_before_anything_runs(evaluation, tmp_path):
  uri, _ = evaluation
  for against, named in (
    ([f"jsonl:{tmp_path}/none.jsonl"], "none.jsonl"),
    ([dict(source=uri, text_keys=["answers"])], "'answers'; valid: question"),
    ([dict(source=uri, text_keys="label")], "'label'"),
    ([dict(uri=uri)], "has the key source"),
    ([dict(source=uri, split="dev")], "dev"),
    ([], "must be a list"),
    (uri, "must be a list"),
  ):
    with pytest.raises(ValueError, match=named) as error:
      contamination(against)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("contamination: ")
  with pytest.raises(ValueError, match="'remove'"):
    contamination([uri], action="remove")


@pytest.mark.shared_data
def test_real_paragraphs_of_an_evaluation_set(shared_data, tmp_path):
  """Of XQuAD half is the evaluation set: its documents drop, others stay."""
  for lang in ("en", "de", "zh"):
    path = shared_data / f"qa_xquad/xquad.{lang}.json"
    articles = json.loads(path.read_text())["data"]
    halves = [
      [p["context"] for a in half for p in a["paragraphs"]]
      for half in (articles[::2], articles[1::2])
    ]
    file = tmp_path / f"{lang}.jsonl"
    file.write_text("\n".join(json.dumps({"text": t}) for t in halves[0]))
    stage = contamination([f"jsonl:{file}"])
    for text in halves[0]:
      middle = text[len(text) // 8 : -len(text) // 8]
      assert stage(Document("a", middle)) == GONE
    assert all(stage(Document("b", t)) != GONE for t in halves[1])
