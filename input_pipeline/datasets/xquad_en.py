"""XQuAD in English: 240 paragraphs of SQuAD 1.1's development set."""

from input_pipeline.datasets import Dataset
from input_pipeline.datasets.parts import xquad


def xquad_en() -> Dataset:
  """The data set."""
  return xquad.xquad(
    "en",
    609_383,
    "e4c57d1c9143aaa1c5d265ba5987a65f4e69528d2a98f29d6e75019b10344f29",
    configs=("qa_newwiki",),
  )
