"""Packs pairs of texts into rows with a separate capacity for each side.

The pairs of a row are planned once, for a fixed number of pairs at a time: the
longest first, each into the row that it fills best among those with room for
both of its sides (best fit decreasing, as in whole_documents.py, in two
dimensions).
"""

import os
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from common.files import write_atomically
from input_pipeline.packing.token_file import TokenFile, token_file
from input_pipeline.packing.whole_documents import by_first, ranges
from input_pipeline.tokenizers import Tokenizer, utf8

_FORMAT = 1
# The number of pairs packed together: each may search all rows.
_TOGETHER = 2**13
# Separates the sides of a pair, which is one document in a token file.
BETWEEN = "\0"

Leaves = dict[str, np.ndarray]


class Pairs(NamedTuple):
  """The tokens of pairs, and the pairs of each row; all others are int64.

  tokens: [N], source, a mark, target, one pair after another.
  ends: [rows], the cumulative number of pairs up to the end of each row.
  places: [pairs], where a pair begins in `tokens`.
  sources, targets: [pairs], the number of tokens read of either side.
  cut: [pairs], whether the target is longer than what is read.
  """

  tokens: np.ndarray
  ends: np.ndarray
  places: np.ndarray
  gaps: np.ndarray
  sources: np.ndarray
  targets: np.ndarray
  cut: np.ndarray


def tokenized(joined, tokenizer: Tokenizer, **how) -> TokenFile:
  """Returns the token file of a source whose "pair" is SOURCE BETWEEN TARGET.

  The id vocab_size separates the sides; `how` has the arguments of token_file.
  """
  mark = tokenizer.vocab_size

  def encode(text: str | bytes) -> np.ndarray:
    sides = utf8(text).decode().split(BETWEEN)
    if len(sides) != 2:
      raise ValueError("a text of a pair contains the character NUL")
    source, target = map(tokenizer.encode, sides)
    return np.concatenate([source, [mark], target])

  of_pairs = tokenizer._replace(
    spec=f"pairs {tokenizer.spec}", encode=encode, vocab_size=mark + 1, eos=None
  )
  return token_file(joined, of_pairs, text_key="pair", **how)


def rows_of(file: TokenFile, mark: int, rooms: tuple[int, int]) -> Pairs:
  """Returns a file's rows of pairs, memory-mapped; planned on the first call.

  Args:
    file: the result of `tokenized`.
    mark: the id between the sides.
    rooms: (S, T), the capacity of a row.
  """
  stem = os.path.splitext(file.path)[0]
  path = f"{stem}.pairs{_FORMAT}-{rooms[0]}-{rooms[1]}"
  if not os.path.exists(path):
    found = plan(file, mark, rooms)
    parts = [np.array([len(found.ends)]), *found[1:]]
    write_atomically(path, (part.astype(np.int64).tobytes() for part in parts))
  kept = np.asarray(np.memmap(path, np.int64, mode="r"))
  rows = int(kept[0])
  ends, rest = kept[1 : rows + 1], kept[rows + 1 :]
  return Pairs(file.tokens, ends, *np.split(rest, 5))


def plan(file: TokenFile, mark: int, rooms: tuple[int, int]) -> Pairs:
  """Packs the pairs of a file into rows."""
  stops = np.asarray(file.ends)
  places = np.concatenate([[0], stops])[:-1].astype(np.int64)
  gaps = np.flatnonzero(file.tokens == mark)
  # Each side is followed by its own end token, except a truncated target.
  sources = np.minimum(gaps - places + 1, rooms[0])
  whole = stops - gaps
  targets = np.minimum(whole, rooms[1])
  row, rows = np.zeros(len(places), np.int64), 0
  for begin in range(0, len(places), _TOGETHER):
    some = slice(begin, begin + _TOGETHER)
    bins = best_fit(np.stack([sources[some], targets[some]], 1), rooms)
    row[some] = rows + by_first(bins)
    rows += int(bins.max(initial=-1)) + 1
  order = np.argsort(row, kind="stable")
  ends = np.cumsum(np.bincount(row, minlength=rows))
  kept = [x[order] for x in (places, gaps, sources, targets, whole > targets)]
  return Pairs(file.tokens, ends, *kept)


def best_fit(sizes: np.ndarray, rooms: tuple[int, int]) -> np.ndarray:
  """Returns the row of each pair, int64 [n]; every row has a pair.

  Args:
    sizes: int64 [n, 2], from 1 to the capacity of either side.
    rooms: the capacity of a row's sides.
  """
  row = np.zeros(len(sizes), np.int64)
  free = np.zeros((len(sizes), 2), np.int64)
  rows = 0
  share = (sizes / np.asarray(rooms)).max(1, initial=0)
  for i in np.argsort(-share, kind="stable"):
    left = free[:rows] - sizes[i]
    fits = np.flatnonzero((left >= 0).all(1))
    if len(fits):
      row[i] = fits[left[fits].sum(1).argmin()]
    else:
      row[i], free[rows] = rows, rooms
      rows += 1
    free[row[i]] -= sizes[i]
  return row


def reader(
  pairs: Pairs, eos: int, rooms: tuple[int, int]
) -> Callable[[np.ndarray], tuple[Leaves, Leaves]]:
  """Returns (int64 [n]) -> (the leaves of the sources, of the targets).

  Each has "tokens", "segments" and "positions", int32 [n, S] or [n, T], 0 on
  padding. Segments number the pairs of a row from 1.
  """

  def read(indices: np.ndarray) -> tuple[Leaves, Leaves]:
    indices = np.asarray(indices, np.int64)
    stops = pairs.ends[indices]
    starts = np.where(indices > 0, pairs.ends[np.maximum(indices - 1, 0)], 0)
    count = stops - starts
    row = np.repeat(np.arange(len(indices)), count)
    number = ranges(count)
    pair = starts[row] + number
    first = (np.cumsum(count) - count)[row]

    def side(begins, length, ended, room) -> Leaves:
      before = np.cumsum(length) - length
      to = np.repeat(row * room + before - before[first], length)
      within = ranges(length)
      last = np.repeat(length - 1, length) == within
      at = np.minimum(np.repeat(begins, length) + within, len(pairs.tokens) - 1)
      tokens = pairs.tokens[at].astype(np.int32)
      leaves = {
        "tokens": np.where(last & np.repeat(ended, length), eos, tokens),
        "segments": np.repeat(number + 1, length),
        "positions": within,
      }
      found = {}
      for name, values in leaves.items():
        found[name] = np.zeros((len(indices), room), np.int32)
        found[name].flat[to + within] = values
      return found

    whole = np.ones(len(pair), bool)
    return (
      side(pairs.places[pair], pairs.sources[pair], whole, rooms[0]),
      side(
        pairs.gaps[pair] + 1,
        pairs.targets[pair],
        pairs.cut[pair] == 0,
        rooms[1],
      ),
    )

  return read
