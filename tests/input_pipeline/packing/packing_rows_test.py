"""Rows of whole documents: every token once, and learned as if alone."""

import jax
import numpy as np
import pytest
from specs import shapes

from input_pipeline.batching import pipeline
from input_pipeline.packing import whole_documents
from input_pipeline.tokenizers import get_tokenizer
from models.language.decoder import decoder
from train import types
from train.tasks.language_modeling import language_modeling


def documents(lengths, seed=0):
  rng = np.random.default_rng(seed)
  return ["".join(rng.choice(list("abcdé"), n)) for n in lengths]


def written(folder, texts) -> str:
  """A URI of the texts, in their order."""
  folder.mkdir()
  for i, text in enumerate(texts):
    (folder / f"{i:05}.txt").write_text(text, encoding="utf-8")
  return f"text:{folder}/*.txt"


def rows_of(uri, tokenizer, seq_len, **kwargs):
  """(all rows in order, their tokenizer)."""
  data = pipeline.evaluation(
    source=uri,
    split="all",
    tokenizer=tokenizer,
    seq_len=seq_len,
    packing=True,
    batch_size=1,
    **kwargs,
  )
  batches = list(data.batches(0))
  assert len(batches) == data.num_examples
  rows = {k: np.concatenate([b[k] for b in batches]) for k in batches[0]}
  assert {k: (v.shape[1:], v.dtype) for k, v in rows.items()} == shapes(
    data.spec
  )
  return rows, data.tokenizer


def pieces(rows):
  """(inputs, targets) of each segment of each row."""
  for r, segments in enumerate(rows["segments"]):
    for number in range(1, segments.max() + 1):
      at = np.flatnonzero(segments == number)
      assert (np.diff(at) == 1).all()
      positions = rows["positions"][r, at]
      np.testing.assert_array_equal(positions, np.arange(len(at)))
      yield (
        tuple(rows["inputs"][r, at].tolist()),
        tuple(rows["targets"][r, at].tolist()),
      )


def cut(ids, eos, seq_len):
  """The pieces that a document must come in."""
  ids = [*ids, *([] if eos is None else [eos])] if len(ids) else []
  for start in range(0, len(ids) - 1, seq_len):
    piece = ids[start : start + seq_len + 1]
    yield tuple(piece[:-1]), tuple(piece[1:])


# Empty documents, one of one token, exact multiples of the row and one more.
_LENGTHS = (3, 0, 1, 16, 17, 33, 32, 2, 100, 5, 5, 5, 15, 14, 0, 1, 7, 40, 16)


@pytest.mark.parametrize("tokenizer", ["byte", "char"])
@pytest.mark.parametrize("seq_len", [1, 7, 16, 500])
def test_every_token_is_a_target_once(tmp_path, tokenizer, seq_len):
  texts = documents(_LENGTHS)
  rows, learned = rows_of(written(tmp_path / "t", texts), tokenizer, seq_len)
  expected = [
    piece
    for text in texts
    for piece in cut(learned.encode(text).tolist(), learned.eos, seq_len)
  ]
  assert sorted(pieces(rows)) == sorted(expected)
  np.testing.assert_array_equal(rows["mask"], rows["segments"] > 0)
  for name in ("inputs", "targets", "positions"):
    assert not rows[name][rows["mask"] == 0].any()
  # Padding comes last.
  assert (np.diff(rows["mask"], axis=1) <= 0).all()
  lengths = learned.byte_lengths[rows["targets"]] * rows["mask"]
  np.testing.assert_array_equal(rows["bytes"], lengths.sum(1))


def test_rows_are_read_in_any_order(tmp_path):
  uri = written(tmp_path / "t", documents(np.arange(60) % 23))
  whole, _ = rows_of(uri, "byte", 16)
  n = len(whole["index"])
  kwargs = dict(source=uri, split="all", tokenizer="byte", seq_len=16)
  kwargs |= dict(packing=True, batch_size=4, seed=2)
  seen = []
  parts = [
    pipeline.train(**kwargs, host_index=h, host_count=2).batches(3)
    for h in range(2)
  ]
  for _ in range(n):
    batch = [next(part) for part in parts]
    batch = {k: np.concatenate([b[k] for b in batch]) for k in batch[0]}
    seen += batch["index"].tolist()
    for name, leaf in batch.items():
      np.testing.assert_array_equal(leaf, whole[name][batch["index"]])
  assert set(seen) == set(range(n))
  one = pipeline.train(**kwargs).batches(3)
  again = [next(one)["index"].tolist() for _ in range(n)]
  assert sum(again, []) == seen


def best_fit_one_by_one(lengths, size):
  """What is in each bin, by the textbook."""
  bins = []
  for length in sorted(lengths, reverse=True):
    fitting = [b for b in bins if sum(b) + length <= size]
    if fitting:
      max(fitting, key=sum).append(length)
    else:
      bins.append([length])
  return sorted(sum(b) for b in bins)


@pytest.mark.parametrize("seed", range(6))
def test_best_fit_is_the_textbooks(seed):
  rng = np.random.default_rng(seed)
  size = int(rng.integers(1, 60))
  lengths = rng.integers(1, size + 1, 400)
  found = whole_documents.best_fit(lengths, size)
  loads = np.bincount(found, weights=lengths)
  assert loads.min() > 0 and loads.max() <= size
  assert sorted(loads.astype(int)) == best_fit_one_by_one(lengths, size)


@pytest.mark.slow
@pytest.mark.parametrize("seq_len", [128, 1024])
def test_little_is_padding(seq_len):
  """Lengths as those of web pages: most are short, most tokens are in few."""
  rng = np.random.default_rng(0)
  tokens = np.minimum(rng.lognormal(5.5, 1.3, 50_000), 1e5).astype(np.int64)
  ends = np.cumsum(tokens + 1) - 1
  rows = whole_documents.plan(ends, True, seq_len)
  assert rows.lengths.sum() == tokens.sum()
  padding = 1 - tokens.sum() / (len(rows.ends) * seq_len)
  assert 0 <= padding < 0.01
  # Every place of the file is the input of one target, but each end.
  covered = np.zeros(ends[-1] + 1, np.int8)
  np.add.at(covered, rows.places, 1)
  np.add.at(covered, rows.places + rows.lengths, -1)
  covered = np.cumsum(covered, dtype=np.int8)
  assert (np.delete(covered, ends) == 1).all() and not covered[ends].any()
  counts = np.diff(rows.ends, prepend=0)
  loads = np.add.reduceat(rows.lengths, rows.ends - counts)
  assert counts.min() > 0 and loads.max() <= seq_len


def test_a_plan_is_made_once(tmp_path, monkeypatch):
  uri = written(tmp_path / "t", documents(np.arange(40)))
  cache = dict(cache_dir=str(tmp_path / "cache"))
  first, _ = rows_of(uri, "byte", 16, **cache)
  with monkeypatch.context() as patch:
    patch.setattr(whole_documents, "plan", None)
    again, _ = rows_of(uri, "byte", 16, **cache)
    with pytest.raises(TypeError):
      rows_of(uri, "byte", 17, **cache)
  for name, leaf in first.items():
    np.testing.assert_array_equal(leaf, again[name])
  # Many windows of documents hold what one does.
  monkeypatch.setattr(whole_documents, "_TOGETHER", 7)
  other, _ = rows_of(uri, "byte", 16, cache_dir=str(tmp_path / "other"))
  assert sorted(pieces(other)) == sorted(pieces(first))


@pytest.mark.slow
@pytest.mark.parametrize("positions", ["rotary", "learned"])
def test_the_loss_of_packed_rows_is_that_of_documents_apart(
  tmp_path, positions
):
  T = 24
  texts = documents((3, 16, 7, 1, 4, 12, 9, 5, 2, 11))
  rows, _ = rows_of(written(tmp_path / "t", texts), "byte", T)
  assert len(rows["index"]) < len(texts) / 1.5
  tokenizer = get_tokenizer("byte", "unused:")
  model = decoder(
    vocab_size=256, layers=2, dim=16, heads=2, positions=positions, max_len=T
  )
  task = language_modeling(model)
  variables = task.init(jax.random.key(0), rows)
  loss = jax.jit(
    lambda batch: task.losses["loss"](
      variables, batch, types.Context(jax.random.key(1), 0, False)
    )
  )
  apart = {
    k: np.zeros((len(texts), T), np.int32) for k in ("inputs", "targets")
  }
  apart["mask"] = np.zeros((len(texts), T), np.float32)
  for i, text in enumerate(texts):
    ids = [*tokenizer.encode(text).tolist(), tokenizer.eos]
    n = len(ids) - 1
    apart["inputs"][i, :n], apart["targets"][i, :n] = ids[:-1], ids[1:]
    apart["mask"][i, :n] = 1
  apart["bytes"] = apart["mask"].sum(1)
  (packed_mean, packed_aux), (mean, aux) = loss(rows), loss(apart)
  assert packed_mean.weight == mean.weight
  np.testing.assert_allclose(packed_mean.total, mean.total, rtol=1e-5)
  bits = packed_aux.metrics["bits_per_byte"].value()
  np.testing.assert_allclose(
    bits, aux.metrics["bits_per_byte"].value(), rtol=1e-5
  )
  # What is predicted knows of the documents too.
  logits = task.predict["logits"]
  predicted = logits(variables, rows, jax.random.key(1))
  alone = logits(variables, apart, jax.random.key(1))
  place_of = {
    tuple(row[mask > 0].tolist()): i
    for i, (row, mask) in enumerate(
      zip(apart["targets"], apart["mask"], strict=True)
    )
  }
  assert len(place_of) == len(texts)
  for r, segments in enumerate(rows["segments"]):
    for number in range(1, segments.max() + 1):
      at = segments == number
      i = place_of.pop(tuple(rows["targets"][r, at].tolist()))
      other = alone[i, : at.sum()]
      np.testing.assert_allclose(predicted[r, at], other, rtol=0, atol=1e-5)
  assert not place_of


@pytest.mark.parametrize(
  ("arguments", "named"),
  [
    (dict(packing=True), "packing=True packs tokens; set a tokenizer"),
    (dict(packing="yes"), "packing='yes' is not True or False"),
    (dict(packing=True, tokenizer="byte"), "seq_len None"),
    (
      dict(packing=True, tokenizer="char", seq_len=8),
      r"\*\.txt all has no document of two or more tokens",
    ),
  ],
)
def test_wrong_arguments_are_named(tmp_path, arguments, named):
  uri = written(tmp_path / "t", ["", "a", "b"])
  with pytest.raises(ValueError, match=named) as error:
    pipeline.train(source=uri, split="all", batch_size=2, **arguments)
  assert "\n" not in str(error.value)
