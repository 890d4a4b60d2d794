import collections

import numpy as np
import pytest

from input_pipeline import rows
from input_pipeline.batching import pipeline
from input_pipeline.rows import cooccurrence
from input_pipeline.rows.cooccurrence import counted

WORDS = dict(
  source="fake:text?documents=6&length=300",
  tokenizer="word?min_count=2",
  seq_len=32,
  rows=dict(name="cooccurrence", window=4),
)


def by_hand(documents, window):
  """The sums of 1 / distance, pair by pair."""
  found = collections.defaultdict(float)
  for ids in documents:
    for t, word in enumerate(ids):
      for s, context in enumerate(ids):
        if 0 < abs(t - s) <= window:
          found[word, context] += 1 / abs(t - s)
  return dict(found)


@pytest.mark.parametrize("together", [3, 7, 2**18])
@pytest.mark.parametrize("window", [1, 3, 10])
def test_counts_are_those_of_a_plain_loop(monkeypatch, together, window):
  monkeypatch.setattr(cooccurrence, "_TOGETHER", together)
  rng = np.random.default_rng(0)
  lengths = [5, 0, 1, 40, 2, 12]
  documents = [rng.integers(0, 7, n) for n in lengths]
  known_V = np.array([False, *[True] * 6])
  kept = [[i for i in ids if i] for ids in documents]
  expected = by_hand(kept, window)
  word, context, count = counted(
    np.concatenate(documents), np.cumsum(lengths), known_V, window
  )
  found = dict(zip(zip(word, context, strict=True), count, strict=True))
  assert set(found) == set(expected)
  assert len(found) == len(word)
  for pair, value in expected.items():
    assert abs(found[pair] - value) < 1e-9, pair


def test_every_entry_is_in_one_row_of_the_pass():
  data = pipeline.evaluation(**WORDS, split="all", batch_size=4)
  entries = collections.Counter()
  total = 0.0
  for batch in data.batches(0):
    real = batch["mask"] > 0
    pairs = zip(batch["word"][real], batch["context"][real], strict=True)
    entries.update(pairs)
    total += batch["count"][real].sum(dtype=float)
    assert not batch["count"][~real].any()
  assert set(entries.values()) == {1}
  source = pipeline.evaluation(
    source=WORDS["source"],
    tokenizer=WORDS["tokenizer"],
    seq_len=8,
    split="all",
    batch_size=1,
  )
  assert data.tokenizer.content == source.tokenizer.content
  from input_pipeline.sources import open_source

  texts = open_source(WORDS["source"], "all").read(np.arange(6))["text"]
  documents = [
    [i for i in data.tokenizer.encode(text).tolist() if i] for text in texts
  ]
  expected = by_hand(documents, 4)
  assert set(entries) == set(expected)
  assert abs(total / sum(expected.values()) - 1) < 1e-5  # kept as float32


def test_the_cached_entries_are_those_that_were_counted(tmp_path):
  def first():
    data = pipeline.train(**WORDS, batch_size=2, cache_dir=str(tmp_path))
    return next(data.batches(3))

  once, again = first(), first()
  assert len(list(tmp_path.glob("*.cooccurrence1-4"))) == 1
  for name, leaf in once.items():
    np.testing.assert_array_equal(leaf, again[name])


def test_a_plan_knows_the_leaves():
  leaves, _ = rows.planned(WORDS["rows"], WORDS["seq_len"])
  data = pipeline.train(**WORDS, batch_size=2)
  for name, (shape, dtype) in leaves.items():
    assert data.spec[name][:2] == (shape, np.dtype(dtype))


@pytest.mark.parametrize(
  "change, told",
  [
    (dict(rows=dict(name="cooccurrence", window=0)), "window=0 is not"),
    (
      dict(source="fake:text?documents=40&length=2", tokenizer="byte"),
      "no two words within a distance of 4",
    ),
  ],
)
def test_what_cannot_be_counted_is_told(change, told):
  if "source" in change:
    change["rows"] = dict(name="cooccurrence", window=4)
    change["source"] = "fake:text?documents=40&length=1"
  with pytest.raises(ValueError, match=told):
    pipeline.train(**{**WORDS, **change}, batch_size=2)
