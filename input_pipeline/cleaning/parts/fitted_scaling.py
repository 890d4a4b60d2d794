"""Scaling fitted to the train split, for the stages z_score and min_max.

The sums of each shard are exact integers, in units of 2**-1074, the least
positive float. So they add up to the same bits in any order and for any shards,
and mean and standard deviation are rounded once. The updates of Chan, Golub and
LeVeque (1983) approximate this in floats.
"""

import functools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from input_pipeline.document import (
  Conclusion,
  Document,
  Global,
  Result,
  Stage,
  split_of,
)
from input_pipeline.ops.parts import scaling
from input_pipeline.ops.parts.scaling import Column, Scaling, Terms

_BITS = 1074
_MORE_BITS = 64


class _Sums(NamedTuple):
  """Of a column: rows with a number, and with what is neither that nor missing.

  total, squares: of the numbers, times 2**1074 and 2**2148.
  """

  count: int
  others: int
  total: int
  squares: int
  min: float
  max: float


_NONE = _Sums(0, 0, 0, 0, math.inf, -math.inf)


def stage(
  kind: str,
  columns: Sequence[str] | None,
  label: str | None,
  missing: str,
  statistics: str | None,
  low: float = 0.0,
  high: float = 1.0,
) -> Global | Stage:
  """Returns the stage: statistics are fitted, or those given are applied.

  Raises:
    ValueError: a setting is wrong, or the file is no statistics of the kind.
  """
  if statistics is not None:
    if columns is not None:
      raise ValueError(f"{kind}: give columns or statistics, not both")
    known = scaling.read(statistics)
    if known.kind != kind:
      raise ValueError(f"{kind}: {statistics} was written by {known.kind}")
    return functools.partial(scaling.scale, scaling.terms(known))
  if columns is not None and (isinstance(columns, str) or not columns):
    raise ValueError(f"{kind}: columns={columns!r} is not a list of names")
  if missing not in scaling.MISSING:
    raise ValueError(
      f"{kind}: missing={missing!r} is unknown; valid:"
      f" {', '.join(scaling.MISSING)}"
    )
  try:
    scaling.check_range(low, high)
  except ValueError as error:
    raise ValueError(f"{kind}: {error}") from None
  chosen = None if columns is None else tuple(columns)
  base = Scaling(kind, missing, low, high, {})
  return Global(
    1,
    functools.partial(_summarize, chosen, label),
    _combine,
    functools.partial(_conclude, base, chosen),
    _judge,
  )


def _summarize(
  chosen: tuple[str, ...] | None,
  label: str | None,
  documents: Iterable[Document],
) -> list[bytes]:
  found: dict[str, list] = {}
  rows = 0
  for document in documents:
    if split_of(document) != "train":
      continue  # Held-out rows must not influence the scaling.
    rows += 1
    for name in document.fields if chosen is None else chosen:
      value = document.fields.get(name)
      if (chosen is None and name == label) or scaling.is_missing(value):
        continue
      sums = found.setdefault(name, list(_NONE))
      value = scaling.number(value)
      if value is None:
        sums[1] += 1
        continue
      # The denominator of a float is a power of 2.
      top, bottom = value.as_integer_ratio()
      shift = _BITS + 1 - bottom.bit_length()
      sums[0] += 1
      sums[2] += top << shift
      sums[3] += top * top << 2 * shift
      sums[4] = min(sums[4], value)
      sums[5] = max(sums[5], value)
  sums = {name: _Sums(*values) for name, values in found.items()}
  return [_packed(sums, rows)]


def _packed(found: Mapping[str, _Sums], rows: int) -> bytes:
  """Returns sums as JSON, in hexadecimal, which converts in linear time."""
  columns = {
    name: [s.count, s.others, hex(s.total), hex(s.squares), s.min, s.max]
    for name, s in sorted(found.items())
  }
  return json.dumps([rows, columns]).encode()


def _unpacked(content: bytes) -> tuple[dict[str, _Sums], int]:
  """Returns (the sums of each column, the number of rows)."""
  rows, columns = json.loads(content)
  return {
    name: _Sums(count, others, int(total, 16), int(squares, 16), low, high)
    for name, (count, others, total, squares, low, high) in columns.items()
  }, rows


def _combine(partition: int, shards: list[bytes]) -> bytes:
  """Returns the sums over all shards."""
  found: dict[str, _Sums] = {}
  rows = 0
  for shard in shards:
    columns, count = _unpacked(shard)
    rows += count
    for name, b in columns.items():
      a = found.get(name, _NONE)
      sums = [x + y for x, y in zip(a[:4], b[:4], strict=True)]
      found[name] = _Sums(*sums, min(a.min, b.min), max(a.max, b.max))
  return _packed(found, rows)


def _conclude(
  base: Scaling,
  chosen: tuple[str, ...] | None,
  partitions: list[bytes],
  documents: list[int],
) -> Conclusion:
  (content,) = partitions
  found, rows = _unpacked(content)
  if chosen is None:
    names = [n for n, s in found.items() if s.count and not s.others]
    if rows and not names:
      raise ValueError(f"{base.kind}: no column holds numbers only")
  else:
    names = list(chosen)
    for name in names if rows else ():
      if not found.get(name, _NONE).count:
        raise ValueError(f"{base.kind}: no row has a number in column {name!r}")
  columns = {
    name: _column(found[name], rows) for name in names if name in found
  }
  content = scaling.dump(base._replace(columns=columns))
  summary: dict[str, Any] = {
    "columns": {name: column._asdict() for name, column in columns.items()}
  }
  try:
    scaling.parse(content)
  except ValueError as error:
    raise ValueError(f"{base.kind}: {error}") from None
  return Conclusion(
    [content] * len(documents), summary, {f"{base.kind}.json": content}
  )


def _column(sums: _Sums, rows: int) -> Column:
  count, others, total, squares, low, high = sums
  # A quotient of integers of any size is rounded once; and a root has
  # 64 bits more than it needs.
  mean = total / (count << _BITS)
  spread = squares * count - total * total
  root = math.isqrt((spread << 2 * _MORE_BITS) // (count * count))
  std = root / (1 << _BITS + _MORE_BITS)
  return Column(count, rows - count - others, mean, std, low, high)


def _judge(verdict: bytes):
  return functools.partial(_scale_at, scaling.terms(scaling.parse(verdict)))


def _scale_at(
  known: Mapping[str, Terms], place: int, document: Document
) -> Result:
  return scaling.scale(known, document)
