"""Sentiment of sentences of film reviews, as in cls_labeled.py.

The 6,920 whole sentences of SST-2 (Socher et al. 2013), without their phrases;
the 872 validation sentences are for early stopping. Measured on a busy CPU with
two seeds: test/accuracy 80.62 and 81.33 %, less than TF-IDF with logistic
regression, 82.21 % (benchmarks/language/text_classification.py).

  python -m input_pipeline.fetch sst2
  python -m train.main --config=configs/text/cls_sst2.py --workdir=runs/sst2
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = common.labeled_texts()
  config.data.update(source="jsonl:data/sst2/train.jsonl", split="all")
  config.data.rows.labels = ("negative", "positive")
  config.evals.val.update(
    source="jsonl:data/sst2/validation.jsonl", split="all"
  )
  config.evals.test = dict(
    name="classification",
    source="jsonl:data/sst2/test.jsonl",
    split="all",
    every_steps=0,
  )
  if common.is_smoke(arg):
    common.shrink_labeled(config)
  return config
