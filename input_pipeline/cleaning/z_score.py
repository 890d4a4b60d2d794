"""Columns of numbers with mean 0 and standard deviation 1."""

from collections.abc import Sequence

from input_pipeline.cleaning.parts import fitted_scaling
from input_pipeline.document import Global, Stage


def z_score(
  columns: Sequence[str] | None = None,
  label: str | None = "label",
  missing: str = "kept",
  statistics: str | None = None,
) -> Global | Stage:
  """A stage that takes the mean from each value and divides by the deviation.

  The statistics are left as z_score.json beside the output: fitted on a
  training set, they scale new data by `statistics`, and batches by the op
  `standardize`. A constant column becomes 0.

  Args:
    columns: the fields that are scaled. A row in which one is neither a number
      nor missing is dropped, as not_a_number. None scales every field that
      holds numbers alone, but for the label.
    label: what None leaves out.
    missing: None, NaN, "" and "?": "kept", or counted as "filled" and replaced
      by the "mean", which is 0.
    statistics: a z_score.json, which says columns and missing, too; the stage
      then need not see the corpus first.

  Raises:
    ValueError: a setting is wrong, or the file is no such statistics; once the
      corpus was seen, a column has no numbers.
  """
  return fitted_scaling.stage("z_score", columns, label, missing, statistics)
