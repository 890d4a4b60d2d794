r"""Labelled texts for a classifier: normalized, deduplicated and split.

  python -m input_pipeline.prepare \
    --config=configs/data/classification_text.py \
    --config.data.source=csv:reviews.csv --config.data.text_key=review \
    --output=DIR

For a linear model on words, enable `lowercase`, `stop_words` and `stem`, such
as by --config.stages[4].skip=False.
"""

from ml_collections import ConfigDict

from configs.data import common


def get_config() -> ConfigDict:
  """The recipe."""
  stages = [
    dict(name="normalize"),
    dict(name="language", keep=None),
    dict(name="redact"),
    dict(name="exact_duplicates"),
    dict(name="lowercase", skip=True),
    dict(name="stop_words", skip=True),
    dict(name="stem", skip=True),
    dict(name="split", fractions=dict(validation=0.1, test=0.1)),
  ]
  return common.recipe("jsonl:texts/*.jsonl", "classification_text", stages)
