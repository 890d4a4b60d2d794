"""What is learned of a table's columns: scales, categories and classes.

The statistics of the training data are kept as JSON in the working directory,
so that an evaluation needs no training data:

  {"scaling": {…}, "indicators": [names], "categories": {name: [values]},
   "classes": [values], "target": {…} or null, "edges": {name: [numbers]}}

"scaling" and "target" have the form of input_pipeline/ops/parts/scaling.py;
"edges" is there only if columns are divided into bins.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from common import bounded_file
from common.names import nearest
from input_pipeline.ops.parts import scaling
from input_pipeline.ops.parts.scaling import Column, Scaling
from input_pipeline.reading.formats import csv as tables

FILE = "columns.json"
MISSING = ""  # the category of a missing value
_MOST_BYTES = 2**24
# Distinct numbers of a column that are kept to divide it into bins; of a column
# with more, the first ones that are read.
_MOST_DISTINCT = 2**20
_FIELDS = ("scaling", "indicators", "categories", "classes", "target")


class Statistics(NamedTuple):
  """What is known of a table's columns.

  scaling: of the numeric columns, in the order of the features.
  indicators: the numeric columns in which training data lack values.
  categories: {column: its values in training data, sorted}; MISSING is one of
    them where values are missing.
  classes: values of the label, in the order of the class numbers.
  target: of the column that is regressed, or None.
  edges: {numeric column: the edges of its bins, ascending}; empty without bins.
  """

  scaling: Scaling
  indicators: tuple[str, ...]
  categories: dict[str, tuple[str, ...]]
  classes: tuple[str, ...]
  target: Column | None
  edges: dict[str, tuple[float, ...]]


class Wanted(NamedTuple):
  """Which columns are used, and for what.

  numeric, categorical: names; where both are None, every column that is
    neither label, target nor excluded, as what it holds.
  most: the largest number of values of a categorical column.
  scales: {numeric column: (mean, standard deviation)} in place of its own.
  kind: of the scaling.
  bins: of each numeric column; 0 for none.
  """

  label: str | None
  target: str | None
  numeric: tuple[str, ...] | None
  categorical: tuple[str, ...] | None
  exclude: tuple[str, ...]
  most: int
  scales: Mapping[str, tuple[float, float]]
  kind: str
  bins: int


class _Seen:
  """What the cells of one column have shown so far."""

  def __init__(self):
    self.count = self.missing = self.others = 0
    self.mean = self.squares = 0.0
    self.min, self.max = math.inf, -math.inf
    self.values: set[str] = set()
    self.distinct = np.zeros(0)

  def add(self, cells: np.ndarray, keep: int, numbers_too=False) -> None:
    """Counts cells; `keep` is the largest number of values remembered.

    With `numbers_too` distinct numbers are remembered as well.
    """
    if cells.ndim != 1:
      self.others += len(cells)
      return
    numbers = []
    for cell in cells.tolist():
      if scaling.is_missing(cell):
        self.missing += 1
        continue
      found = tables.number(cell) if isinstance(cell, str) else as_number(cell)
      if found is None:
        self.others += 1
      else:
        numbers.append(float(found))
      if len(self.values) <= keep:
        self.values.add(as_text(cell))
    if numbers:
      self._merge(np.array(numbers))
      if numbers_too and len(self.distinct) < _MOST_DISTINCT:
        self.distinct = np.union1d(self.distinct, numbers)

  def _merge(self, numbers: np.ndarray) -> None:
    """Adds numbers to the moments (Chan, Golub and LeVeque 1983)."""
    n, mean = len(numbers), float(numbers.mean())
    total, apart = self.count + n, mean - self.mean
    self.squares += float(((numbers - mean) ** 2).sum())
    self.squares += apart * apart * self.count * n / total
    self.mean += apart * n / total
    self.count = total
    self.min = min(self.min, float(numbers.min()))
    self.max = max(self.max, float(numbers.max()))

  def edges(self, bins: int) -> tuple[float, ...]:
    """The edges of at most `bins` bins with equally many distinct numbers.

    Each distinct number counts once: a number that most rows share, such as 0,
    would else be all of the quantiles.
    """
    last = len(self.distinct) - 1
    places = np.unique(np.linspace(0, last, bins + 1).round().astype(int))
    return tuple(self.distinct[places].tolist())

  def column(self) -> Column:
    std = math.sqrt(self.squares / self.count)
    return Column(self.count, self.missing, self.mean, std, self.min, self.max)


def as_number(value: Any) -> float | None:
  """A finite number, spelled out or not; None for everything else."""
  if isinstance(value, bool):
    return float(value)
  if isinstance(value, str):
    try:
      value = float(value.replace("_", "x"))  # "1_000" is not a number
    except ValueError:
      return None
  return scaling.number(value)


def as_text(value: Any) -> str:
  """A value as the name of a category or class; 1.0 is "1", as 1 is."""
  if isinstance(value, bytes):
    return value.decode(errors="replace").strip()
  if isinstance(value, float) and value.is_integer():
    value = int(value)
  return str(value).strip()


def check_names(wanted: Wanted, names: Sequence[str], title: str) -> None:
  """Raises ValueError for the first wanted column that a table lacks."""
  asked = [wanted.label, wanted.target, *(wanted.numeric or ())]
  asked += [*(wanted.categorical or ()), *wanted.exclude, *wanted.scales]
  for name in asked:
    if name is not None and name not in names:
      raise ValueError(
        f"{title} has no column {name!r}{nearest(name, names)}"
        f" (there are: {', '.join(names)})"
      )


def learned(
  chunks: Iterable[dict[str, np.ndarray]], wanted: Wanted, title: str
) -> Statistics:
  """The statistics of a training set.

  Args:
    chunks: its records, some at a time.
    wanted: which columns are used.
    title: what to call the data in an error.

  Raises:
    ValueError: there is no such column, or one does not hold what it should;
      one line that names it.
  """
  seen: dict[str, _Seen] = {}
  for chunk in chunks:
    check_names(wanted, list(chunk), title)
    for name, cells in chunk.items():
      # A label may have more classes than a feature may have categories.
      most = 2**31 if name == wanted.label else wanted.most
      seen.setdefault(name, _Seen()).add(cells, most, wanted.bins > 0)
  numeric, categorical = _kinds(wanted, seen)
  columns = {}
  for name in numeric:
    _check_numeric(seen[name], name, title)
    columns[name] = seen[name].column()
    if name in wanted.scales:
      mean, std = wanted.scales[name]
      columns[name] = columns[name]._replace(mean=mean, std=std)
  categories = {}
  for name in categorical:
    values = seen[name].values
    if len(values) > wanted.most:
      raise ValueError(
        f"{title}: column {name!r} has more than {wanted.most} values; name it"
        " in `exclude`, or raise `max_categories`"
      )
    absent = [MISSING] if seen[name].missing else []
    categories[name] = (*absent, *ordered(values))
  if not columns and not categories:
    raise ValueError(f"{title}: no column is left to be a feature")
  classes, target = (), None
  if wanted.label is not None:
    classes = tuple(ordered(seen[wanted.label].values))
    if len(classes) < 2:
      raise ValueError(
        f"{title}: the label {wanted.label!r} has {len(classes)} class in the"
        " training data; it needs at least two"
      )
  if wanted.target is not None:
    _check_numeric(seen[wanted.target], wanted.target, title)
    target = seen[wanted.target].column()
  known = Scaling(wanted.kind, "mean", 0.0, 1.0, columns)
  indicators = tuple(n for n, c in columns.items() if c.missing)
  edges = {}
  if wanted.bins:
    edges = {name: seen[name].edges(wanted.bins) for name in columns}
  return Statistics(known, indicators, categories, classes, target, edges)


def _kinds(wanted: Wanted, seen: Mapping[str, _Seen]):
  """(numeric, categorical), the names of the columns that become features."""
  if wanted.numeric is not None or wanted.categorical is not None:
    return wanted.numeric or (), wanted.categorical or ()
  unused = {wanted.label, wanted.target, *wanted.exclude}
  used = [n for n in seen if n not in unused and seen[n].values]
  return (
    [n for n in used if not seen[n].others],
    [n for n in used if seen[n].others],
  )


def _check_numeric(seen: _Seen, name: str, title: str) -> None:
  if seen.others:
    raise ValueError(
      f"{title}: column {name!r} holds more than numbers; name it in"
      " `categorical`"
    )
  if not seen.count:
    raise ValueError(f"{title}: no row has a number in column {name!r}")


def ordered(values: Iterable[str]) -> list[str]:
  """Sorted as numbers where all of them are, else as text."""
  numbers = {value: as_number(value) for value in values}
  if None in numbers.values():
    return sorted(numbers)
  return sorted(numbers, key=lambda value: (numbers[value], value))


def dump(known: Statistics) -> bytes:
  """The statistics as JSON."""
  found = {
    **known._asdict(),
    "scaling": json.loads(scaling.dump(known.scaling)),
    "target": known.target and known.target._asdict(),
  }
  if not known.edges:
    del found["edges"]
  return (json.dumps(found, indent=1, ensure_ascii=False) + "\n").encode()


def read(path: str) -> Statistics:
  """The statistics that `dump` wrote to a file.

  Raises:
    ValueError: the file is missing, damaged or of another kind.
  """
  content = bounded_file.read(path, _MOST_BYTES)
  try:
    return parse(content)
  except (ValueError, RecursionError) as error:
    reason = str(error).splitlines()[0]
    raise ValueError(f"{path}: not statistics of columns: {reason}") from None


def parse(content: bytes) -> Statistics:
  """The statistics that `dump` returned as JSON.

  Raises:
    ValueError: the content is invalid.
  """
  found = json.loads(content)
  if not isinstance(found, dict) or {*found, "edges"} != {*_FIELDS, "edges"}:
    raise ValueError(f"it does not hold {', '.join(_FIELDS)}")
  categories = found["categories"]
  if not isinstance(categories, dict):
    raise ValueError("its categories are not an object")
  lists = [found["indicators"], found["classes"], *categories.values()]
  for each in lists:
    if not isinstance(each, list) or not all(isinstance(v, str) for v in each):
      raise ValueError("its names and values are not lists of text")
    if len(set(each)) < len(each):
      raise ValueError("a name or value occurs twice in one of its lists")
  known = scaling.parse(json.dumps(found["scaling"]).encode())
  target = found["target"]
  if target is not None:
    columns = {"target": target}
    base = {**known._asdict(), "kind": "z_score", "columns": columns}
    target = scaling.parse(json.dumps(base).encode()).columns["target"]
  unknown = set(found["indicators"]) - set(known.columns)
  if unknown:
    raise ValueError(f"{sorted(unknown)[0]!r} has an indicator, but no scale")
  edges = _parsed_edges(found.get("edges", {}), known)
  return Statistics(
    known,
    tuple(found["indicators"]),
    {name: tuple(values) for name, values in categories.items()},
    tuple(found["classes"]),
    target,
    edges,
  )


def _parsed_edges(found, known: Scaling) -> dict[str, tuple[float, ...]]:
  if not isinstance(found, dict) or not set(found) <= set(known.columns):
    raise ValueError("its edges are not those of numeric columns")
  for name, edges in found.items():
    if not isinstance(edges, list) or not edges:
      raise ValueError(f"the edges of {name!r} are not a list of numbers")
    numbers = [scaling.number(edge) for edge in edges]
    if None in numbers or sorted(set(numbers)) != numbers:
      raise ValueError(f"the edges of {name!r} are not ascending numbers")
  return {name: tuple(map(float, edges)) for name, edges in found.items()}
