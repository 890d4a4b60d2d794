"""Rows of a table: named columns as a vector of features, and a target."""

import os
from collections.abc import Iterator, Sequence

import numpy as np

from common.files import write_atomically
from input_pipeline import bad_records
from input_pipeline.ops.parts import scaling as scales_lib
from input_pipeline.reading.columns import strings
from input_pipeline.rows import Given, Learning, Rows
from input_pipeline.rows.parts import column_statistics as statistics
from input_pipeline.rows.parts.column_statistics import Statistics, Wanted

NEEDS_TOKENIZER = False
AXES = {"x": ("feature",), "y": ("output",)}
UNSEEN = ("zeros", "column")
_CHUNK = 4096  # records that are read at once to learn from


def columns(
  given: Given,
  *,
  label: str | None = None,
  target: str | None = None,
  numeric: Sequence[str] | None = None,
  categorical: Sequence[str] | None = None,
  exclude: Sequence[str] = (),
  scaling: str = "z_score",
  scales: Sequence[tuple[str, float, float]] = (),
  scale_target: bool = False,
  indicators: bool = True,
  unseen: str = "zeros",
  max_categories: int = 100,
  bins: int = 0,
) -> Rows:
  """Rows of features and a class or a number: {"x": float32 [F], …}.

  With `label` a row also has "label", int32 [], the number of its class; with
  `target` "y", float32 [1]. All statistics are those of the training data.
  They are kept in columns.json of the working directory, and later runs and
  evaluations there read them.

  A numeric column is one feature, scaled, in which the mean takes the place of
  a missing value. After all of those, a column that lacks values in the
  training data has an indicator, 1 where its value is missing. A categorical
  column then has a feature for each of its values in the training data, one of
  which is 1; a missing value counts as a value where the training data have
  one. Empty cells, "?", None and NaN are missing values.

  With `bins` a numeric column has a feature for each of its bins at the end: 0
  below the bin, 1 above it, and linear in between (Gorishniy et al.,
  arXiv:2203.05556). A network then fits steps and heavy tails, as of incomes,
  that one scaled number hides. The edges are quantiles of the distinct values
  of the training data.

  Args:
    given: of the data.
    label: the column of the class, of text or numbers; its values in sorted
      order are the class names.
    target: the column of the number to predict. Exactly one of the two is
      given.
    numeric: columns of numbers.
    categorical: columns of categories, of text or numbers. Where neither this
      nor `numeric` is given, every other column is used: as numeric where all
      of its values are numbers, else as categorical.
    exclude: columns that are then left out, such as an identifier.
    scaling: "z_score", or "min_max" to the range 0 to 1.
    scales: (column, mean, standard deviation) of numeric columns whose own
      statistics are not used, such as a median and an interquartile range
      where there are outliers; for "z_score".
    scale_target: whether "y" is the z-score of the target; the mean squared
      error is then the share of the variance that is not explained.
    indicators: whether there are indicators of missing values.
    unseen: what becomes of a category that the training data do not have:
      "zeros" sets none of its column's features, "column" adds one for it.
    max_categories: the largest number of values of a categorical column.
    bins: the largest number of bins of a numeric column; 0 for none.

  Raises:
    ValueError: a setting is wrong, or a column is missing or does not hold
      what it should; one line that names it.
  """
  del numeric, categorical, exclude, scaling, scales, max_categories, bins
  if unseen not in UNSEEN:
    raise ValueError(f"unseen={unseen!r}; valid: {', '.join(UNSEEN)}")
  known: Statistics = given.fitted  # has what the deleted settings ask for
  if not indicators:
    known = known._replace(indicators=())
  _check_kept(known, label, target)
  terms = scales_lib.terms(known.scaling)
  places = {
    name: {value: i for i, value in enumerate(values)}
    for name, values in known.categories.items()
  }
  extra = unseen == "column"
  width = len(terms) + len(known.indicators)
  width += sum(len(values) + extra for values in known.categories.values())
  width += sum(len(edges) - 1 for edges in known.edges.values())
  classes = {value: i for i, value in enumerate(known.classes)}
  source = given.source

  def read(indices: np.ndarray) -> dict[str, np.ndarray]:
    records = source.read(indices)
    names = [source.name(int(index)) for index in indices]
    for name in (*terms, *places, label or target):
      if name not in records:
        raise ValueError(f"{given.title} has no column {name!r}")
    features, absent, binned = [], {}, []
    for name, (offset, factor, shift, fill) in terms.items():
      values = _numbers(records[name], name, names)
      absent[name] = np.isnan(values)
      values = np.where(absent[name], fill, values)
      features.append(((values - offset) * factor + shift)[:, None])
      if name in known.edges:
        binned.append(_in_bins(values, known.edges[name]))
    features += [absent[name][:, None] for name in known.indicators]
    for name, positions in places.items():
      features.append(_one_hot(records[name], positions, extra))
    x = np.concatenate(features + binned, axis=1).astype(np.float32)
    if label is not None:
      cells = records[label]
      return {"x": x, "label": _labels(cells, label, classes, names)}
    y = _numbers(records[target], target, names)
    if np.isnan(y).any():
      record = names[int(np.flatnonzero(np.isnan(y))[0])]
      raise ValueError(f"{record}: the target {target!r} is missing")
    if scale_target:
      y = (y - known.target.mean) / (known.target.std or 1.0)
    return {"x": x, "y": y.astype(np.float32)[:, None]}

  def unscaled(y: np.ndarray) -> np.ndarray:
    return y.astype(np.float64) * (known.target.std or 1.0) + known.target.mean

  note = f"{width} features of {len(terms) + len(places)} columns"
  if known.classes:
    note += f", {len(known.classes)} classes"
  return Rows(
    source.length,
    read,
    num_classes=len(known.classes) or None,
    class_names=known.classes,
    note=note,
    unscaled=unscaled if scale_target and known.target else None,
  )


def placeholders(
  given: Given,
  records,
  indices: np.ndarray,
  *,
  label: str | None = None,
  target: str | None = None,
  **other,
) -> dict[str, np.ndarray]:
  """Returns labels for records without them, see rows/__init__.py."""
  del records, other
  known: Statistics = given.fitted
  if label is not None and known.classes:
    return {label: strings([known.classes[0]] * len(indices))}
  if target is not None and known.target:
    return {target: np.full(len(indices), known.target.mean)}
  return {}


def fit(
  learning: Learning,
  *,
  label: str | None = None,
  target: str | None = None,
  numeric: Sequence[str] | None = None,
  categorical: Sequence[str] | None = None,
  exclude: Sequence[str] = (),
  scaling: str = "z_score",
  scales: Sequence[tuple[str, float, float]] = (),
  max_categories: int = 100,
  bins: int = 0,
  **other,
) -> Statistics:
  """The statistics kept in the working directory, or learned and kept there.

  Raises:
    ValueError: a setting is wrong, or it is an evaluation for which no
      training has kept any.
  """
  del other
  if (label is None) == (target is None):
    raise ValueError("rows.columns: set `label` or `target`, exactly one")
  wanted = Wanted(
    label,
    target,
    _names("numeric", numeric),
    _names("categorical", categorical),
    _names("exclude", exclude) or (),
    max_categories,
    _given_scales(scales, scaling),
    scaling,
    bins,
  )
  if isinstance(bins, bool) or not isinstance(bins, int) or bins < 0:
    raise ValueError(f"rows.bins={bins!r} is not a count")
  folder = learning.workdir
  path = os.path.join(folder, statistics.FILE) if folder else None
  if path and os.path.lexists(path):
    return statistics.read(path)
  if not learning.training:
    raise ValueError(
      "rows.columns: an evaluation reads the statistics of the training data"
      f" in {path or 'a workdir'}, and there are none"
    )
  title = " + ".join(learning.titles)
  known = statistics.learned(_chunks(learning, wanted), wanted, title)
  content = statistics.dump(known)
  try:
    statistics.parse(content)
  except ValueError as error:
    raise ValueError(f"{title}: {error}") from None
  if path:
    write_atomically(path, [content])
  return known


def _chunks(
  learning: Learning, wanted: Wanted
) -> Iterator[dict[str, np.ndarray]]:
  """The records of all sources, without those that the policy skips."""
  tally = bad_records.Tally(learning.policy)
  numbers = [*(wanted.numeric or ()), *filter(None, [wanted.target])]
  for source in learning.sources:

    def read(indices: np.ndarray, source=source) -> dict[str, np.ndarray]:
      rows = source.read(indices)
      names = [source.name(int(index)) for index in indices]
      for column in numbers:
        if column in rows:
          _numbers(rows[column], column, names)
      return rows

    for start in range(0, source.length, _CHUNK):
      indices = np.arange(start, min(start + _CHUNK, source.length))
      if learning.policy.skip:
        rows, _, errors = bad_records.surviving(read, indices)
        names = {i: source.name(int(indices[i])) for i in errors}
        tally.add(len(indices), [(names[i], e) for i, e in errors.items()])
      else:
        rows = source.read(indices)
      if rows:
        yield rows


def _names(what: str, names: Sequence[str] | None) -> tuple[str, ...] | None:
  if names is None:
    return None
  if isinstance(names, str) or not all(isinstance(n, str) for n in names):
    raise ValueError(f"rows.{what}={names!r} is not a list of columns")
  return tuple(names)


def _given_scales(scales, scaling: str) -> dict[str, tuple[float, float]]:
  if scaling not in scales_lib.KINDS:
    valid = ", ".join(scales_lib.KINDS)
    raise ValueError(f"rows.scaling={scaling!r}; valid: {valid}")
  if scales and scaling != "z_score":
    raise ValueError(f"rows.scales need scaling='z_score', not {scaling!r}")
  found = {}
  for each in scales:
    if not isinstance(each, Sequence) or len(each) != 3:
      raise ValueError(
        f"rows.scales: {each!r} is not (column, mean, deviation)"
      )
    name, mean, std = each[0], *map(scales_lib.number, each[1:])
    if mean is None or std is None or not std > 0:
      raise ValueError(
        f"rows.scales: {list(each)!r} has no mean and deviation above 0"
      )
    found[name] = (mean, std)
  return found


def _check_kept(known: Statistics, label, target) -> None:
  """Raises ValueError where kept statistics are those of another task."""
  if bool(known.classes) != (label is not None) or (
    (known.target is None) != (target is None)
  ):
    raise ValueError(
      f"rows.columns: {statistics.FILE} was made for another label or target"
    )


def _numbers(cells: np.ndarray, column: str, names: list[str]) -> np.ndarray:
  """The cells as float64, NaN where a value is missing."""
  if cells.dtype.kind in "biuf" and cells.ndim == 1:
    return cells.astype(np.float64)
  found = np.full(len(names), np.nan)
  for i, cell in enumerate(cells.tolist()):
    if scales_lib.is_missing(cell):
      continue
    value = statistics.as_number(cell)
    if value is None:
      raise ValueError(
        f"{names[i]}: column {column!r} holds {str(cell)[:40]!r}, which is not"
        " a number"
      )
    found[i] = value
  return found


def _one_hot(cells: np.ndarray, places: dict[str, int], extra: bool):
  """[n, values], and a column more for other values where `extra` is set."""
  found = np.zeros((len(cells), len(places) + extra))
  for i, cell in enumerate(cells.tolist()):
    absent = scales_lib.is_missing(cell)
    value = statistics.MISSING if absent else statistics.as_text(cell)
    place = places.get(value, len(places))
    if place < found.shape[1]:
      found[i, place] = 1
  return found


def _in_bins(values: np.ndarray, edges: tuple[float, ...]) -> np.ndarray:
  """[n, len(edges) - 1]: the share of each bin that lies below a value."""
  low = np.array(edges)
  return np.clip((values[:, None] - low[:-1]) / np.diff(low), 0, 1)


def _labels(cells, column: str, classes: dict[str, int], names: list[str]):
  found = np.zeros(len(names), np.int32)
  for i, cell in enumerate(cells.tolist()):
    if scales_lib.is_missing(cell):
      raise ValueError(f"{names[i]}: the label {column!r} is missing")
    value = statistics.as_text(cell)
    if value not in classes:
      known = ", ".join(list(classes)[:10])
      raise ValueError(
        f"{names[i]}: {column}={value!r} is not a class of the training data"
        f" ({known})"
      )
    found[i] = classes[value]
  return found
