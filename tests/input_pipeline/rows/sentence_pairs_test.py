import json
import string

import numpy as np
import pytest
from specs import shapes

from input_pipeline import rows
from input_pipeline.batching import pipeline
from input_pipeline.rows import sentence_pairs as pairs_lib
from input_pipeline.tokenizers.parts import special_tokens

CLS, SEP, MASK = 256, 257, 258  # above the bytes
DOCUMENTS = 20


def documents():
  """Texts of one letter each, which tells where a piece is from."""
  return [
    "".join(f"{letter * (1 + n % 7)}." for n in range(250))
    for letter in string.ascii_letters[:DOCUMENTS]
  ]


def source_of(tmp_path, texts):
  path = tmp_path / "texts.jsonl"
  path.write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
  return f"jsonl:{path}"


def read(tmp_path, texts, seq_len=32, batch_size=64, ops="", **kind):
  return pipeline.evaluation(
    source=source_of(tmp_path, texts),
    split="all",
    tokenizer="byte",
    seq_len=seq_len,
    rows=dict(name="sentence_pairs", **kind),
    ops=ops,
    batch_size=batch_size,
    cache_dir=str(tmp_path / "cache"),
  )


def halves(batch, i):
  """The two texts of a row, taken apart by its special tokens."""
  row = batch["inputs"][i][batch["segments"][i] > 0].tolist()
  assert row[0] == CLS and row[-1] == SEP
  middle = row.index(SEP)
  return bytes(row[1:middle]).decode(), bytes(row[middle + 1 : -1]).decode()


def each(data):
  for batch in data.batches(0):
    for i in np.flatnonzero(batch["index"] >= 0):
      yield batch, i


def test_halves_come_from_the_documents_that_the_label_tells(tmp_path):
  texts = documents()
  of = {text[0]: text for text in texts}
  random, sources, seen, lengths = 0, [], 0, ([], [])
  for batch, i in each(read(tmp_path, texts)):
    first, second = halves(batch, i)
    letters = [half.strip(".")[:1] for half in (first, second)]
    if batch["label"][i]:
      random += 1
      sources.append(letters[1])
      # A half may be the full stop that its piece begins with.
      assert letters[0] != letters[1]
      assert first in of.get(letters[0], ".")
      assert second in of[letters[1]]
    else:
      assert first + second in of[letters[1]]
    # A piece of more than one sentence is cut between two, and a random half
    # begins with one.
    if len(first) + len(second) > 8:
      assert first.endswith(".") and second[0] in string.ascii_letters
    lengths[int(batch["label"][i])].append(len(first) + len(second))
    seen += 1
  assert seen == sum(-(-len(t) // 29) - (len(t) % 29 == 1) for t in texts)
  # Within four standard deviations of a binomial.
  assert abs(random - seen / 2) < 4 * (seen / 4) ** 0.5
  assert set(sources) == set(of)
  # Nor does the length tell what is random: all but last pieces fill a row.
  for found in lengths:
    assert max(found) == 29 and found.count(29) > 0.9 * len(found)


def test_marks_are_where_the_halves_are(tmp_path):
  byte_count = 0
  for batch, i in each(read(tmp_path, documents()[:3])):
    first, second = halves(batch, i)
    a, b = len(first), len(second)
    pad = 32 - a - b - 3
    assert batch["types"][i].tolist() == [0] * (a + 2) + [1] * (b + 1) + (
      [0] * pad
    )
    assert batch["segments"][i].tolist() == [1] * (a + b + 3) + [0] * pad
    text_alone = [0, *[1] * a, 0, *[1] * b, 0, *[0] * pad]
    assert batch["mask"][i].tolist() == text_alone
    assert batch["bytes"][i] == a + b
    np.testing.assert_array_equal(batch["inputs"][i], batch["targets"][i])
    byte_count += 1
  assert byte_count > 50


@pytest.mark.parametrize("random", [0, 1])
def test_the_share_of_random_pairs_may_be_all_or_none(tmp_path, random):
  data = read(tmp_path, documents()[:4], random=random)
  assert {int(batch["label"][i]) for batch, i in each(data)} == {random}


def test_a_row_is_the_same_however_it_is_read(tmp_path):
  texts = documents()[:5]
  whole, single = (
    [halves(b, i) for b, i in each(read(tmp_path, texts, batch_size=size))]
    for size in (64, 1)
  )
  assert whole == single


def test_without_next_sentence_a_row_is_one_text(tmp_path):
  data = read(tmp_path, ["abc", "d", "0123456789"], 8, 8, next_sentence=False)
  batch = next(data.batches(0))
  assert "label" not in batch and data.num_classes is None
  found = [[int(t) for t in row if t] for row in batch["inputs"] if row.any()]
  want = ["abc", "d", "012345", "6789"]
  assert found == [[CLS, *text.encode(), SEP] for text in want]
  assert not batch["types"].any()


@pytest.mark.parametrize("whole_words", [False, True])
def test_marks_are_never_masked(tmp_path, whole_words):
  texts, ops = documents(), f"mask_tokens(0.5, whole_words={whole_words})"
  data = read(tmp_path, texts, ops=ops)
  chosen = total = 0
  for batch, i in each(data):
    text = batch["targets"][i] < 256
    real = batch["segments"][i] > 0
    assert not batch["mask"][i][~(text & real)].any()
    changed = batch["inputs"][i] != batch["targets"][i]
    assert not changed[batch["mask"][i] == 0].any()
    chosen += batch["mask"][i].sum()
    total += (text & real).sum()
  assert data.tokenizer.vocab_size == 259
  assert (batch["inputs"] == MASK).any()
  assert 0.45 < chosen / total < 0.55


def test_labeled_rows_have_the_vocabulary_of_masked_ones(tmp_path):
  """So that what was pre-trained with masks is fine-tuned as it is."""
  labeled = pipeline.evaluation(
    source="fake:labeled_text",
    tokenizer="byte",
    seq_len=16,
    rows=dict(name="labeled"),
    batch_size=4,
  ).tokenizer
  masked = read(tmp_path, documents()[:2], ops="mask_tokens").tokenizer
  for family in special_tokens.BERT:
    assert special_tokens.find(labeled, family) == special_tokens.find(
      masked, family
    )
  assert labeled.vocab_size == masked.vocab_size


def test_a_sentence_ends_at_its_last_mark():
  data = pipeline.evaluation(
    source="fake:labeled_text",
    tokenizer="byte",
    seq_len=16,
    rows=dict(name="labeled"),
    batch_size=4,
  )
  ends = pairs_lib.sentence_ends(data.tokenizer)
  assert set(np.flatnonzero(ends)) == {ord(c) for c in ".!?\n"}
  text = np.frombuffer(b"Oh?! No.\nYes", np.uint8)
  begins = np.flatnonzero(pairs_lib._begins(text, ends)).tolist()
  assert begins == [0, 4, 9]


def test_a_plan_knows_the_leaves(tmp_path):
  for kind in (dict(next_sentence=True), dict(next_sentence=False)):
    told, classes = rows.planned(dict(name="sentence_pairs", **kind), 32)
    data = read(tmp_path, documents()[:2], **kind)
    want = {k: (tuple(s), np.dtype(d)) for k, (s, d) in told.items()}
    assert {k: v for k, v in shapes(data.spec).items() if k != "index"} == want
    assert data.num_classes == classes


@pytest.mark.parametrize(
  ("texts", "kind", "told"),
  [
    (["abc def"], {}, "only one document: set random=0"),
    (["a", "b"], {}, "no document of 2 tokens"),
    (["abc", "def"], dict(seq_len=4), "leaves no room"),
    (["abc", "def"], dict(random=2), "not within 0..1"),
    (["abc", "def"], dict(rondom=1), 'did you mean "random"'),
  ],
)
def test_what_cannot_be_paired_is_told(tmp_path, texts, kind, told):
  with pytest.raises(ValueError, match=told):
    read(tmp_path, texts, **kind)
