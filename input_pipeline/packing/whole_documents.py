"""Packs whole documents into rows of tokens.

A document is split only if it is longer than a row: into pieces of seq_len
targets, each beginning with the last target of the previous one, as windows do.
So every token of a document except its first is a target exactly once, and so
is the end-of-document token after it, if the tokenizer has one.

The pieces of each row are planned once for a token file, by best fit decreasing
(Johnson, "Near-optimal bin packing algorithms", 1973) over a fixed number of
documents at a time: the longest piece first, each into the fullest row that
still has room for it. Pieces of equal length are placed at once.
"""

import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from common.files import write_atomically
from input_pipeline.packing.token_file import TokenFile
from input_pipeline.tokenizers import Tokenizer

_FORMAT = 1
# The number of documents packed together: the pieces of a row are close to one
# another in the file, and planning needs little memory at any size.
_TOGETHER = 2**16


class Rows(NamedTuple):
  """The pieces of each row; all int64.

  ends: [rows], the cumulative number of pieces up to the end of each row.
  places: [pieces], the position of a piece's first input in the token file.
  lengths: [pieces], the number of its targets.
  """

  ends: np.ndarray
  places: np.ndarray
  lengths: np.ndarray


def packed(
  file: TokenFile, tokenizer: Tokenizer, seq_len: int, title: str
) -> tuple[int, Callable[[np.ndarray], dict[str, np.ndarray]]]:
  """Returns (number of rows, reader of rows).

  A row is {"inputs", "targets", "segments", "positions": int32 [T], "mask":
  float32 [T], "bytes": float32 []}. Segments number the pieces of a row from 1,
  positions count from the start of each; all are 0 on padding.

  Args:
    file: of the documents.
    tokenizer: of the tokens.
    seq_len: T.
    title: the name of the documents in error messages.

  Raises:
    ValueError: no document has a token to predict.
  """
  plan = rows_of(file, tokenizer.eos, seq_len)
  if not len(plan.ends):
    raise ValueError(f"{title} has no document of two or more tokens to pack")
  byte_lengths_V = tokenizer.byte_lengths.astype(np.float32)
  last = len(file.tokens) - 1

  def read(indices: np.ndarray) -> dict[str, np.ndarray]:
    indices = np.asarray(indices, np.int64)
    stops = plan.ends[indices]
    starts = np.where(indices > 0, plan.ends[np.maximum(indices - 1, 0)], 0)
    count = stops - starts
    row = np.repeat(np.arange(len(indices)), count)
    number = ranges(count)
    piece = starts[row] + number
    place, length = plan.places[piece], plan.lengths[piece]
    # A piece begins in its row after the pieces before it.
    before = np.cumsum(length) - length
    column = before - before[(np.cumsum(count) - count)[row]]

    within = ranges(length)
    from_place = np.repeat(place, length) + within
    to_place = np.repeat(row * seq_len + column, length) + within
    # The file has no eos after its last document.
    targets = np.where(
      from_place < last,
      file.tokens[np.minimum(from_place + 1, last)],
      0 if tokenizer.eos is None else tokenizer.eos,
    )
    leaves = {
      "inputs": file.tokens[from_place],
      "targets": targets,
      "segments": np.repeat(number + 1, length),
      "positions": within,
    }
    shape = (len(indices), seq_len)
    batch = {}
    for name, values in leaves.items():
      batch[name] = np.zeros(shape, np.int32)
      batch[name].flat[to_place] = values
    mask_BT = batch["segments"] > 0
    batch["mask"] = mask_BT.astype(np.float32)
    bytes_BT = byte_lengths_V[batch["targets"]] * mask_BT
    return {**batch, "bytes": np.sum(bytes_BT, 1, np.float32)}

  return len(plan.ends), read


def ranges(counts: np.ndarray) -> np.ndarray:
  """Returns 0 .. n - 1 for each n of `counts`, concatenated."""
  starts = np.cumsum(counts) - counts
  return np.arange(counts.sum()) - np.repeat(starts, counts)


def by_first(row: np.ndarray, order: np.ndarray | None = None) -> np.ndarray:
  """Renumbers rows from 0, in the order of the first item in each.

  Args:
    row: int64 [n], the row of each item; every row has an item.
    order: int64 [n], the order of the items; that of `row` if None.
  """
  looked = row if order is None else row[order]
  _, first = np.unique(looked, return_index=True)
  rank = np.argsort(np.argsort(first, kind="stable"), kind="stable")
  return rank[row]


def rows_of(file: TokenFile, eos: int | None, seq_len: int) -> Rows:
  """Returns a token file's rows, memory-mapped; planned on the first call."""
  path = f"{os.path.splitext(file.path)[0]}.rows{_FORMAT}-{seq_len}"
  if not os.path.exists(path):
    rows = plan(file.ends, eos is not None, seq_len)
    parts = [np.array([len(rows.ends)]), *rows]
    write_atomically(path, (part.astype(np.int64).tobytes() for part in parts))
  found = np.asarray(np.memmap(path, np.int64, mode="r"))
  rows = int(found[0])
  ends, rest = found[1 : rows + 1], found[rows + 1 :]
  return Rows(ends, *np.split(rest, 2))


def plan(ends: np.ndarray, has_eos: bool, seq_len: int) -> Rows:
  """Packs documents into rows of seq_len targets.

  Args:
    ends: int64 [documents], where each ends in the token file.
    has_eos: whether one token separates documents.
    seq_len: the number of targets of a row.
  """
  starts = np.concatenate([[0], ends + has_eos])[:-1].astype(np.int64)
  tokens = ends - starts
  # The eos, if there is one, is predicted after a document's last token.
  targets = np.where(tokens > 0, tokens - (not has_eos), 0)
  found = [
    part
    for begin in range(0, len(starts), _TOGETHER)
    for part in _pack(
      starts[begin : begin + _TOGETHER],
      targets[begin : begin + _TOGETHER],
      seq_len,
    )
  ]
  if not found:
    return Rows(*np.zeros((3, 0), np.int64))
  counts, places, lengths = zip(*found, strict=True)
  return Rows(
    np.cumsum(np.concatenate(counts)),
    np.concatenate(places),
    np.concatenate(lengths),
  )


def _pack(
  starts: np.ndarray, targets: np.ndarray, seq_len: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
  """Returns (pieces of each row, places, lengths), rows in file order."""
  whole, rest = np.divmod(targets, seq_len)
  full_place = np.repeat(starts, whole) + ranges(whole) * seq_len
  short = np.flatnonzero(rest)
  place = np.concatenate([full_place, (starts + whole * seq_len)[short]])
  if not len(place):
    return
  full_length = np.full(len(full_place), seq_len)
  length = np.concatenate([full_length, rest[short]])
  bins = best_fit(rest[short], seq_len) + len(full_place)
  row = np.concatenate([np.arange(len(full_place)), bins])
  row = by_first(row, np.argsort(place, kind="stable"))
  in_order = np.lexsort((place, row))
  yield np.bincount(row), place[in_order], length[in_order]


def best_fit(lengths: np.ndarray, size: int) -> np.ndarray:
  """Returns the bin of each length by best fit, longest first.

  Args:
    lengths: int64 [n], from 1 to `size`.
    size: the capacity of a bin.

  Returns:
    int64 [n]; bins are numbered from 0, and none is empty.
  """
  bin_of = np.zeros(len(lengths), np.int64)
  by_length = np.argsort(-lengths, kind="stable")
  groups = np.flatnonzero(np.diff(lengths[by_length], prepend=0))
  room: dict[int, np.ndarray] = {}  # bins by their free space
  has_room = np.zeros(size + 1, bool)
  bins = 0

  def give_back(free: int, some: np.ndarray) -> None:
    if free and len(some):
      room[free] = np.concatenate([room.get(free, some[:0]), some])
      has_room[free] = True

  for items in np.split(by_length, groups[1:]):
    length = int(lengths[items[0]]) if len(items) else 0
    while len(items):
      free = length + int(np.argmax(has_room[length:]))
      if has_room[free]:
        there = room.pop(free)
        has_room[free] = False
      else:
        free = size
        there = bins + np.arange(-(-len(items) // (size // length)))
        bins += len(there)
      each = free // length
      filled = min(len(there), len(items) // each)
      if filled:
        bin_of[items[: filled * each]] = np.repeat(there[:filled], each)
        give_back(free - each * length, there[:filled])
        items, there = items[filled * each :], there[filled:]
      if len(there) and len(items):
        bin_of[items] = there[0]
        give_back(free - len(items) * length, there[:1])
        items, there = items[:0], there[1:]
      give_back(free, there)
  return bin_of
