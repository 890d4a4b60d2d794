import json

import pytest

from input_pipeline.batching import pipeline
from input_pipeline.rows import planned
from input_pipeline.rows.bag_of_ngrams import FILE
from input_pipeline.rows.parts.ngram_hashes import hasher

ROWS = dict(name="bag_of_ngrams", buckets=2**20)


def grams(text, least, most):
  """N-grams of characters of each word, one after another, as strings."""
  return {
    f" {word} "[i : i + n]
    for word in text.lower().split()
    for n in range(least, most + 1)
    for i in range(len(word) + 3 - n)
  }


def written(path, records):
  path.write_text("".join(json.dumps(each) + "\n" for each in records))
  return f"jsonl:{path}"


def read(source, split="all", rows=ROWS, seq_len=32, **more):
  return pipeline.evaluation(
    source=source, split=split, rows=rows, seq_len=seq_len, batch_size=2, **more
  )


def test_hashes_are_one_to_one_with_ngrams():
  hashed = hasher(2, (2, 4), 2**30)
  text = "The cat saw the cat, unbelievably."
  words, characters = hashed(text, 0)
  # the cat saw the cat , unbelievably . and their seven pairs
  assert len(words) == 15 and len(set(words.tolist())) == 6 + 6
  assert words[0] == words[6] and words[1] == words[7]  # the, the cat
  assert len(set(characters.tolist())) == len(grams(text, 2, 4))
  assert not set(words.tolist()) & set(characters.tolist())
  assert not set(words.tolist()) & set(hashed(text, 1)[0].tolist())
  # The same in every process and on every machine.
  assert hasher(1, (0, 0), 1000)("a b", 0)[0].tolist() == FIXED


def test_the_ends_of_a_text_count_as_words():
  inside, _ = hasher(2, (0, 0), 2**30)("who ran", 0)
  words, _ = hasher(2, (0, 0), 2**30, ends=True)("who ran", 0)
  # begin who ran, begin, begin who, who, who ran, ran, ran end, end
  assert len(set(words.tolist())) == 8
  assert words[3:6].tolist() == inside.tolist()
  other, _ = hasher(2, (0, 0), 2**30, ends=True)("who ran off", 0)
  assert set(words[[0, 1, 2, 3, 4, 5, 7]].tolist()) < set(other.tolist())
  assert not len(hasher(2, (0, 0), 2**30, ends=True)(" ", 0)[0])


FIXED = [752, 694]


def test_a_script_without_spaces_has_characters_as_words():
  hashed = hasher(1, (0, 0), 2**20)
  assert len(hashed("房间很大, ok", 0)[0]) == 6


@pytest.mark.parametrize("text", ["", "   ", "a"])
def test_a_short_text_has_few_ngrams(text):
  words, characters = hasher(2, (3, 5), 100)(text, 0)
  assert len(words) == len(characters) == len(text.strip())


def test_a_row_holds_both_kinds_of_both_texts(tmp_path):
  source = written(
    tmp_path / "a.jsonl",
    [
      {"text": "ab", "more": "ab c", "label": "y"},
      {"text": "ab", "more": "", "label": "x"},
    ],
  )
  rows = dict(**ROWS, characters=(2, 2), pair_key="more", labels=("x", "y"))
  # A tokenizer is not an error, so that a config can replace one that has it.
  batch = next(read(source, rows=rows, tokenizer="byte").batches(0))
  assert batch["segments"][0].tolist() == [1] + [2] * 3 + [3] * 3 + [4] * 5 + (
    [0] * 20
  )
  assert batch["types"][0].tolist() == [0] * 4 + [1] * 8 + [0] * 20
  assert batch["label"].tolist() == [1, 0]
  assert (batch["tokens"][:, :4] == batch["tokens"][0, :4]).all()
  leaves, classes = planned(rows, 32)
  assert classes == 2 and {k: batch[k].shape[1:] for k in leaves} == {
    k: shape for k, (shape, _) in leaves.items()
  }


def test_a_long_text_keeps_words_from_its_beginning_to_its_end(tmp_path):
  text = " ".join(f"w{i}" for i in range(100))
  source = written(tmp_path / "a.jsonl", [{"text": text, "label": 0}] * 2)
  rows = dict(**ROWS, labels=("x",), words=1)
  batch = next(read(source, rows=rows, seq_len=20).batches(0))
  assert batch["segments"][0].tolist() == [1] * 10 + [2] * 10
  words, _ = hasher(1, (2, 5), 2**20)(text, 0)
  assert batch["tokens"][0, :10].tolist() == words[::10].tolist()


def test_classes_are_learned_from_the_training_data_and_kept(tmp_path):
  source = written(
    tmp_path / "a.jsonl",
    [{"text": "t", "label": label} for label in (10, 2, 10, 7)],
  )
  run = tmp_path / "run"
  run.mkdir()
  common = dict(rows=ROWS, seq_len=8, batch_size=4, workdir=str(run))
  data = pipeline.train(source=source, split="all", shuffle=False, **common)
  assert data.class_names == ("2", "7", "10")
  assert next(data.batches(0))["label"].tolist() == [2, 0, 2, 1]
  other = written(tmp_path / "b.jsonl", [{"text": "t", "label": 7}] * 2)
  found = read(other, workdir=str(run))
  assert next(found.batches(0))["label"].tolist() == [1, 1]
  strange = written(tmp_path / "c.jsonl", [{"text": "t", "label": 1}] * 2)
  with pytest.raises(ValueError, match="label=1 is none of 2, 7, 10"):
    next(read(strange, workdir=str(run)).batches(0))
  (run / FILE).write_text("{}")
  with pytest.raises(ValueError, match="does not hold the names of classes"):
    read(other, workdir=str(run))


@pytest.mark.parametrize(
  "rows, record, reason",
  [
    (dict(words=0, characters=(0, 0)), {}, "leave no n-grams"),
    (dict(characters=(3, 2)), {}, r"not \(shortest, longest\)"),
    (dict(buckets=1), {}, "buckets=1 is not"),
    (dict(pair_key="b"), {}, "no field 'b'"),
    ({}, {"text": 3}, "is not a text"),
    (dict(labels=None), {}, "set rows.labels"),
  ],
)
def test_what_is_wrong_is_one_line(tmp_path, rows, record, reason):
  source = written(tmp_path / "a.jsonl", [{"text": "t", "label": 0, **record}])
  rows = {**ROWS, "labels": ("x",), **rows}
  with pytest.raises(ValueError, match=reason) as error:
    next(read(source, rows=rows).batches(0))
  assert "\n" not in str(error.value)


def test_the_number_of_ngrams_must_be_set(tmp_path):
  source = written(tmp_path / "a.jsonl", [{"text": "t", "label": 0}])
  with pytest.raises(ValueError, match="seq_len None is not the number"):
    read(source, rows={**ROWS, "labels": ("x",)}, seq_len=None)
