r"""Rows of a table: deduplicated, split, and standardized by the train split.

  python -m input_pipeline.prepare --config=configs/data/tabular.py \
    --config.data.source='csv:table.csv' --output=DIR

The means and standard deviations are written to z_score.json, for inference.
"""

from ml_collections import ConfigDict

from configs.data import common


def get_config() -> ConfigDict:
  """The recipe."""
  stages = [
    dict(name="exact_duplicates", by="record"),
    dict(name="split", fractions=dict(validation=0.1, test=0.1), by="record"),
    dict(name="z_score"),
    dict(name="min_max", skip=True),
  ]
  config = common.recipe("csv:table.csv", "tabular", stages)
  with config.data.ignore_type():
    config.data.text_key = None
  return config
