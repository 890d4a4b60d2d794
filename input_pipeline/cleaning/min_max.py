"""Columns of numbers from a least to a greatest."""

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
  """A stage that maps each column's least to `low` and greatest to `high`.

  The statistics are left as min_max.json beside the output: fitted on a
  training set, they scale new data by `statistics`, and batches by the op
  `standardize`; what is new may lie outside. A constant column becomes `low`.

  Args:
    columns: the fields that are scaled. A row in which one is neither a number
      nor missing is dropped, as not_a_number. None scales every field that
      holds numbers alone, but for the label.
    label: what None leaves out.
    missing: None, NaN, "" and "?": "kept", or counted as "filled" and replaced
      by the "mean", before it is scaled.
    low: of the scale.
    high: of the scale.
    statistics: a min_max.json, which says all of the above; the stage then need
      not see the corpus first.

  Raises:
    ValueError: a setting is wrong, or the file is no such statistics; once the
      corpus was seen, a column has no numbers.
  """
  return fitted_scaling.stage(
    "min_max", columns, label, missing, statistics, low, high
  )
