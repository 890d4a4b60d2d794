"""Counts how often words occur near one another: GloVe's co-occurrences."""

import os
from collections.abc import Iterator

import numpy as np

from common.files import write_atomically
from input_pipeline import order
from input_pipeline.packing.token_file import token_file
from input_pipeline.rows import Given, Rows

_FORMAT = 1
# The number of words whose pairs are counted at once.
_TOGETHER = 2**18


def cooccurrence(given: Given, *, window: int = 10) -> Rows:
  """Rows of T entries X_ij of the matrix of co-occurrences.

  Two words of a document that are d <= window words apart add 1 / d to the
  entries of both orders (Pennington et al., EMNLP 2014). Words whose count in
  the tokenizer is 0, such as <unk>, are removed before distances are measured.

  A row is {"word", "context": int32 [T], "count", "mask": float32 [T]}. Each
  entry above 0 is in one row, by a fixed permutation; the entries are counted
  once and kept beside the token file.

  Args:
    given: of the data.
    window: the largest distance of a context, in words.

  Raises:
    ValueError: window is below 1, or no two words are within the window.
  """
  if not isinstance(window, int) or window < 1:
    raise ValueError(f"rows.window={window!r} is not a positive integer")
  file = token_file(
    given.source,
    given.tokenizer,
    uri=given.uri,
    split=given.split,
    text_key=given.text_key,
    cache_dir=given.cache_dir,
    tally=given.tally,
  )
  stem = os.path.splitext(file.path)[0]
  path = f"{stem}.cooccurrence{_FORMAT}-{window}"
  if not os.path.exists(path):
    counts = given.tokenizer.counts
    size = given.tokenizer.vocab_size
    known_V = np.ones(size, bool) if counts is None else counts > 0
    if given.tokenizer.eos is not None:
      known_V[given.tokenizer.eos] = False  # between documents
    entries = counted(file.tokens, file.ends, known_V, window)
    write_atomically(path, (part.tobytes() for part in _mixed(*entries)))
  # An empty file cannot be mapped.
  n = os.path.getsize(path) // 12
  if not n:
    raise ValueError(
      f"{given.title} has no two words within a distance of {window}"
    )
  word, context, bits = np.memmap(path, np.int32, mode="r").reshape(3, n)
  count = bits.view(np.float32)
  T = given.seq_len

  def read(indices: np.ndarray) -> dict[str, np.ndarray]:
    place_BT = np.asarray(indices, np.int64)[:, None] * T + np.arange(T)
    real_BT = place_BT < n
    place_BT = np.minimum(place_BT, n - 1)
    leaves = {"word": word, "context": context, "count": count}
    rows = {k: np.where(real_BT, v[place_BT], 0) for k, v in leaves.items()}
    rows["count"] = rows["count"].astype(np.float32)
    return {**rows, "mask": real_BT.astype(np.float32)}

  return Rows(-(-n // T), read, planned=True)


def leaves(seq_len: int, **other):
  """Returns ({leaf: (shape, dtype)}, None) of such rows."""
  del other
  found = dict.fromkeys(("word", "context"), ((seq_len,), np.int32))
  return {**found, "count": ((seq_len,), np.float32)}, None


def counted(
  tokens: np.ndarray, ends: np.ndarray, known_V: np.ndarray, window: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns (word, context, count) of the entries above 0, in this order.

  Args:
    tokens: ids, all documents concatenated.
    ends: int64, where each document ends; a token between two documents belongs
      to the later one.
    known_V: bool, which ids are words.
    window: the largest distance of a context.
  """
  size = len(known_V)
  keys, sums = np.zeros(0, np.int64), np.zeros(0)
  waiting: list[tuple[np.ndarray, np.ndarray]] = []
  for found in _blocks(tokens, ends, known_V, window):
    waiting.append(_summed(*found, size, window))
    # Merged when their number has doubled, so that no sum is copied often.
    if sum(len(k) for k, _ in waiting) >= len(keys):
      keys, sums = _added([(keys, sums), *waiting])
      waiting = []
  keys, sums = _added([(keys, sums), *waiting])
  return keys // size, keys % size, sums


def _blocks(
  tokens, ends, known_V, window
) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
  """Yields (ids, their documents, number of ids shared with the last block)."""
  ids, documents = (np.zeros(0, np.int64),) * 2
  for start in range(0, len(tokens), _TOGETHER):
    place = np.arange(start, min(start + _TOGETHER, len(tokens)))
    new = np.asarray(tokens[place], np.int64)
    of = np.searchsorted(ends, place, side="right")
    keep = known_V[new]
    before = min(window, len(ids))
    ids, documents = (
      np.concatenate([old[len(old) - before :], added[keep]])
      for old, added in ((ids, new), (documents, of))
    )
    yield ids, documents, before


def _summed(ids, documents, before, size, window):
  """Returns (keys, sums) of the pairs of a block whose later word is new."""
  parts = []
  for d in range(1, window + 1):
    first, stop = max(before - d, 0), max(len(ids) - d, 0)
    earlier, later = slice(first, stop), slice(first + d, stop + d)
    same = documents[earlier] == documents[later]
    i, j = ids[earlier][same], ids[later][same]
    weight = np.full(len(i), 1 / d)
    parts += [(i * size + j, weight), (j * size + i, weight)]
  return _added(parts)


def _added(parts) -> tuple[np.ndarray, np.ndarray]:
  """Returns (keys, sums) with each key once, in order."""
  keys, weights = (np.concatenate(each) for each in zip(*parts, strict=True))
  keys, place = np.unique(keys, return_inverse=True)
  return keys, np.bincount(place, weights, minlength=len(keys))


def _mixed(word, context, count) -> list[np.ndarray]:
  """Returns the entries in stored order, in which any row is a fair sample."""
  n = len(word)
  if not n:
    return []
  at = order.permute(np.arange(n), n, order.epoch_key(0, np.zeros(1, int)))
  types = (np.int32, np.int32, np.float32)
  found = zip((word, context, count), types, strict=True)
  return [each[at].astype(dtype) for each, dtype in found]
