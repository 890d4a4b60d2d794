"""Columns of numbers, scaled by statistics that are kept in a file.

The statistics of a training set, {"kind": "z_score" or "min_max", "missing",
"low", "high", "columns": {name: {"count", "missing", "mean", "std", "min",
"max"}}} as JSON, scale new data at inference: in a stage of `prepare`, in the
op `standardize`, or in rows of columns.

A value x becomes (x - offset) * factor + shift, which are specific to the
column. A constant column is only shifted: its factor is that of a spread of 1.
"""

import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from common import bounded_file
from input_pipeline.document import Counted, Document, Dropped, Result

KINDS = ("z_score", "min_max")
MISSING = ("kept", "mean")
# Spellings of a missing value.
SPELLED_MISSING = ("", "?")
_MOST_BYTES = 2**24


class Column(NamedTuple):
  """Statistics of a column.

  count, missing: number of rows with and without a number.
  mean, std, min, max: of the numbers; std is the population's.
  """

  count: int
  missing: int
  mean: float
  std: float
  min: float
  max: float


class Scaling(NamedTuple):
  """How each column is scaled.

  kind: one of KINDS.
  missing: "kept" keeps missing values, "mean" replaces them by the mean.
  low, high: values to which "min_max" maps a column's minimum and maximum.
  columns: {name: Column}.
  """

  kind: str
  missing: str
  low: float
  high: float
  columns: Mapping[str, Column]


class Terms(NamedTuple):
  """(x - offset) * factor + shift; `fill` replaces a missing x."""

  offset: float
  factor: float
  shift: float
  fill: float | None


def terms(scaling: Scaling) -> dict[str, Terms]:
  """{column: Terms}."""
  return {name: _terms(scaling, c) for name, c in scaling.columns.items()}


def _terms(scaling: Scaling, column: Column) -> Terms:
  fill = column.mean if scaling.missing == "mean" else None
  if scaling.kind == "z_score":
    return Terms(column.mean, 1 / (column.std or 1.0), 0.0, fill)
  spread = column.max - column.min
  factor = (scaling.high - scaling.low) / (spread or 1.0)
  return Terms(column.min, factor, scaling.low, fill)


def is_missing(value: Any) -> bool:
  """None, NaN, "?", or nothing but white space."""
  if isinstance(value, str):
    return value.strip() in SPELLED_MISSING
  return value is None or (isinstance(value, float) and math.isnan(value))


def number(value: Any) -> float | None:
  """A finite number as a float, or None."""
  if isinstance(value, bool) or not isinstance(value, (int, float)):
    return None
  try:
    found = float(value)
  except OverflowError:
    return None
  return found if math.isfinite(found) else None


def scale(known: Mapping[str, Terms], document: Document) -> Result:
  """The scaled row; Dropped if a column contains a non-number."""
  fields, filled = dict(document.fields), 0
  for name, (offset, factor, shift, fill) in known.items():
    value = fields.get(name)
    if is_missing(value):
      if fill is None:
        continue
      value, filled = fill, filled + 1
    found = number(value)
    if found is not None:
      found = (found - offset) * factor + shift
    if found is None or not math.isfinite(found):
      return Dropped("not_a_number")
    fields[name] = found
  document = document._replace(fields=fields)
  return Counted(document, {"filled": filled}) if filled else document


def dump(scaling: Scaling) -> bytes:
  """The statistics as JSON."""
  columns = {name: c._asdict() for name, c in scaling.columns.items()}
  found = {**scaling._asdict(), "columns": columns}
  return (json.dumps(found, indent=1, ensure_ascii=False) + "\n").encode()


def read(path: str) -> Scaling:
  """The statistics that `dump` wrote to a file.

  Raises:
    ValueError: the file is missing, damaged or of another kind.
  """
  content = bounded_file.read(path, _MOST_BYTES)
  try:
    return parse(content)
  except (ValueError, RecursionError) as error:
    reason = str(error).splitlines()[0]
    raise ValueError(f"{path}: not statistics of a scaling: {reason}") from None


def parse(content: bytes) -> Scaling:
  """Returns the statistics from JSON; ValueError if it is invalid."""
  found = json.loads(content)
  if not isinstance(found, dict) or set(found) != set(Scaling._fields):
    raise ValueError(f"it does not hold {', '.join(Scaling._fields)}")
  if found["kind"] not in KINDS or found["missing"] not in MISSING:
    raise ValueError("its kind or its treatment of what is missing is unknown")
  if not isinstance(found["columns"], dict):
    raise ValueError("its columns are not an object")
  columns = {}
  for name, values in found["columns"].items():
    if not isinstance(values, dict) or set(values) != set(Column._fields):
      raise ValueError(f"column {name!r} lacks one of its statistics")
    if any(number(value) is None for value in values.values()):
      raise ValueError(f"column {name!r} has a statistic that is not a number")
    columns[name] = Column(**values)
  check_range(found["low"], found["high"])
  scaling = Scaling(**{**found, "columns": columns})
  for name, column in columns.items():
    if not 0 < _terms(scaling, column).factor < math.inf:
      raise ValueError(f"column {name!r} is too narrow or too wide to scale")
  return scaling


def check_range(low: Any, high: Any) -> None:
  """Raises ValueError unless both are numbers and low is below high."""
  if number(low) is None or number(high) is None or not low < high:
    raise ValueError(f"low={low!r} is not a number below high={high!r}")
