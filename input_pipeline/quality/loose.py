"""Records of two data sets that are equal, or equal but for small changes.

Two records are compared by the fields that both data sets have, by what their
values are and not by the types in which they are stored. Besides equal records
there are those that differ in case or white space, and those whose numbers are
equal after rounding.
"""

import math
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import NamedTuple

import numpy as np

from input_pipeline.quality import values
from input_pipeline.quality.dataset import Dataset

CASE = "case or white space"
ROUNDING = "rounding"
# Values of a field by which its number of digits is found.
_SEEN = 10_000
# The precision of float32, in which numbers are often stored.
_FLOAT32 = 6
_CHUNK = 1024


class Compared(NamedTuple):
  """What n records are compared by.

  exact: uint64 [n], digests of all fields.
  words: uint64 [n], digests of what is not a number, without case and white
    space.
  numbers: {field: float64 [n]}, NaN where a value is not a number.
  """

  exact: np.ndarray
  words: np.ndarray
  numbers: dict[str, np.ndarray]


def compared(data: Dataset, fields: Sequence[str]) -> Compared:
  """What the records are compared by; reads them again."""
  n = len(data.indices)
  exact, words = np.zeros(n, np.uint64), np.zeros(n, np.uint64)
  numbers = {field: np.full(n, np.nan) for field in fields}
  free = {field: data.columns[field].kind == "text" for field in fields}
  for start in range(0, n, _CHUNK):
    found = data.source.read(data.indices[start : start + _CHUNK])
    for i in range(min(_CHUNK, n - start)):
      parts, loose = [], []
      for field in fields:
        value = found[field][i]
        part = values.encoded(value, free[field])
        parts.append(part)
        if part[:1] == b"n":
          numbers[field][start + i] = values.number(_text(value))
          loose.append(b"#")
        else:
          loose.append(values.encoded(value, free[field], loose=True))
      exact[start + i] = values.digest(parts)
      words[start + i] = values.digest(loose)
  numbers = {f: x for f, x in numbers.items() if not np.isnan(x).all()}
  return Compared(exact, words, numbers)


def _text(value):
  return value.decode() if isinstance(value, bytes) else value


def fields_of(data: Dataset, other: Dataset) -> list[str]:
  """The fields that both have, without the labels, in alphabetical order."""
  labels = {data.label, other.label}
  return sorted(set(data.columns) & set(other.columns) - labels)


def matches(keys: np.ndarray, others: np.ndarray) -> np.ndarray:
  """int64 [n]: the first of the others with the same key, or -1."""
  if not len(others):
    return np.full(len(keys), -1)
  unique, first = np.unique(others, return_index=True)
  place = np.minimum(np.searchsorted(unique, keys), len(unique) - 1)
  return np.where(unique[place] == keys, first[place], -1)


def near_keys(
  mine: Compared, theirs: Compared
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
  """Yields (what is ignored, keys of mine, keys of theirs): uint64 [n], [m].

  Numbers are rounded to the decimals, or to the significant digits, of the
  data set that has fewer of them in a field, in each of the usual ways.
  """
  nothing = [np.full(len(each.words), np.nan) for each in (mine, theirs)]
  fields = sorted({*mine.numbers, *theirs.numbers})
  pairs = [
    (mine.numbers.get(f, nothing[0]), theirs.numbers.get(f, nothing[1]))
    for f in fields
  ]
  words = (mine.words, theirs.words)
  yield CASE, *_keys(words, [[x] for x in pairs])
  both = [tuple(map(_places, pair)) for pair in pairs]
  digits = [min(a.digits, b.digits) for a, b in both]
  models = []
  if any(a.decimals != b.decimals for a, b in both):
    decimals = [min(a.decimals, b.decimals) for a, b in both]
    models.append((_to_decimals, decimals))
  if any(a.digits != b.digits for a, b in both):
    models.append((_to_digits, digits))
  if any(d > _FLOAT32 for d in digits):
    models.append((_to_digits, [min(d, _FLOAT32) for d in digits]))
  for rounded, most in models:
    for how in (np.rint, _half_up, _cut_off):
      yield (
        ROUNDING,
        *_keys(
          words,
          [
            list(zip(*(rounded(x, n, how) for x in pair), strict=True))
            for pair, n in zip(pairs, most, strict=True)
          ],
        ),
      )


class _Places(NamedTuple):
  """The most decimals, and the most significant digits, of a field."""

  decimals: int
  digits: int


def _places(numbers: np.ndarray) -> _Places:
  there = numbers[np.isfinite(numbers)]
  there = there[:: max(1, len(there) // _SEEN)]
  decimals, digits = -math.inf, 1
  for x in np.unique(there).tolist():
    found = Decimal(repr(x)).normalize().as_tuple()
    decimals = max(decimals, -found.exponent if x else 0)
    digits = max(digits, len(found.digits))
  return _Places(int(decimals) if len(there) else 0, digits)


def _half_up(x: np.ndarray) -> np.ndarray:
  # 0.285 * 100 is a little less than 28.5, which is meant.
  return np.copysign(np.floor(np.abs(x) * (1 + 1e-12) + 0.5), x)


def _cut_off(x: np.ndarray) -> np.ndarray:
  return np.trunc(x * (1 + 1e-12))


def _to_decimals(x: np.ndarray, decimals: int, how) -> list[np.ndarray]:
  with np.errstate(over="ignore", invalid="ignore"):
    scaled = x * 10.0**decimals
    return [np.where(np.abs(scaled) < 2**53, how(scaled), scaled)]


def _to_digits(x: np.ndarray, digits: int, how) -> list[np.ndarray]:
  """The significant digits as a whole number, and the exponent."""
  with np.errstate(all="ignore"):
    power = np.floor(np.log10(np.abs(np.where(x == 0, 1, x)))) + 1 - digits
    whole = how(x / 10.0**power)
    # Rounding 999.6 to three digits makes four of them.
    over = np.abs(whole) >= 10.0**digits
    return [np.where(over, whole / 10, whole), power + over]


def _keys(words: Sequence[np.ndarray], parts) -> list[np.ndarray]:
  """Digests of the words and numbers of both data sets.

  Args:
    words: digests of both.
    parts: of each field, pairs of float64 [n], [m].
  """
  found = []
  for side, key in enumerate(words):
    for pairs in parts:
      for pair in pairs:
        # Adding 0 makes -0.0 0; all NaN become the same.
        x = np.where(np.isnan(pair[side]), np.nan, pair[side] + 0.0)
        key = _mixed(key ^ _mixed(x.view(np.uint64)))
    found.append(key)
  return found


def _mixed(x: np.ndarray) -> np.ndarray:
  """Mixes the bits of 64-bit integers, without collisions (splitmix64)."""
  with np.errstate(over="ignore"):
    x = (x + np.uint64(0x9E3779B97F4A7C15)).astype(np.uint64)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
