"""XQuAD in Chinese: the same questions in professional translation."""

from input_pipeline.datasets import Dataset
from input_pipeline.datasets.parts import xquad


def xquad_zh() -> Dataset:
  """The data set."""
  return xquad.xquad(
    "zh",
    808_652,
    "691d0b3359bc6b8faa8de931dfdfe21d50a65861ae348e32a0d1a0190b0c8835",
    configs=("qa_xquad_zh",),
  )
