"""Scaling of columns of numbers to mean 0 and standard deviation 1."""

from collections.abc import Sequence

from input_pipeline.cleaning.parts import fitted_scaling
from input_pipeline.document import Global, Stage


def z_score(
  columns: Sequence[str] | None = None,
  label: str | None = "label",
  missing: str = "kept",
  statistics: str | None = None,
) -> Global | Stage:
  """A stage that scales columns to mean 0 and standard deviation 1.

  The statistics of the training split are written to z_score.json beside the
  output. They scale new data when given as `statistics` here or to the op
  `standardize`. A constant column becomes 0.

  Args:
    columns: the fields to scale. A row in which one of them is neither a number
      nor missing is dropped as "not_a_number". None scales every field that
      holds numbers only, except the label.
    label: the field that columns=None leaves out.
    missing: what to do with None, NaN, "" and "?": "kept", or "mean", which
      replaces them, so that they become 0, and counts them as "filled".
    statistics: a z_score.json, which replaces columns and missing; the stage
      then does not read the corpus first.

  Raises:
    ValueError: a setting or the file is wrong, or, after reading the corpus, a
      column has no numbers.
  """
  return fitted_scaling.stage("z_score", columns, label, missing, statistics)
