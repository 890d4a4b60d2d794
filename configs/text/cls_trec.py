"""The kind of answer that a question asks for, as in cls_labeled.py.

TREC has 5,452 questions of six kinds for training and 500 for testing (Li and
Roth 2002). A tenth of the former is held out for early stopping. Measured on
a busy CPU: test/accuracy 88.60 %; TF-IDF with logistic regression 87.80 %
(benchmarks/language/text_classification.py).

  python -m input_pipeline.fetch trec
  python -m train.main --config=configs/text/cls_trec.py --workdir=runs/trec
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = common.labeled_texts()
  config.data.source = "jsonl:data/trec/train.jsonl"
  config.data.rows.labels = (
    "description",
    "entity",
    "abbreviation",
    "human",
    "location",
    "number",
  )
  config.evals.test = dict(
    name="classification",
    source="jsonl:data/trec/test.jsonl",
    split="all",
    every_steps=0,
  )
  if common.is_smoke(arg):
    common.shrink_labeled(config)
  return config
