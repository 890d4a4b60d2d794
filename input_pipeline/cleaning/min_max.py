"""Scaling of columns of numbers to a range."""

from collections.abc import Sequence

from input_pipeline.cleaning.parts import fitted_scaling
from input_pipeline.document import Global, Stage


def min_max(
  columns: Sequence[str] | None = None,
  label: str | None = "label",
  missing: str = "kept",
  low: float = 0.0,
  high: float = 1.0,
  statistics: str | None = None,
) -> Global | Stage:
  """A stage that scales columns so that their range is `low` to `high`.

  The statistics of the training split are written to min_max.json beside the
  output. They scale new data, whose values may lie outside of the range, when
  given as `statistics` here or to the op `standardize`. A constant column
  becomes `low`.

  Args:
    columns: the fields to scale. A row in which one of them is neither a number
      nor missing is dropped as "not_a_number". None scales every field that
      holds numbers only, except the label.
    label: the field that columns=None leaves out.
    missing: what to do with None, NaN, "" and "?": "kept", or "mean", which
      replaces them before scaling and counts them as "filled".
    low: the value of a column's minimum.
    high: the value of a column's maximum.
    statistics: a min_max.json, which replaces the settings above; the stage
      then does not read the corpus first.

  Raises:
    ValueError: a setting or the file is wrong, or, after reading the corpus, a
      column has no numbers.
  """
  return fitted_scaling.stage(
    "min_max", columns, label, missing, statistics, low, high
  )
