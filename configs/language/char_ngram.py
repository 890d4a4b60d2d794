"""Interpolated Kneser-Ney n-grams of Shakespeare's characters.

Setting: 6-grams with continuation counts below, discounts estimated for each
order; one epoch in windows of 4,096, across which no n-gram is counted. NumPy's
estimate over the whole text at once (input_pipeline/cleaning/parts/ngram.py)
gives 2.248 bits a character; higher orders give more.
Measured on 2 CPU cores: 2.249 bits a character after 4 s
(benchmarks/language/language_models.md).

  python -m train.main --config=configs/language/char_ngram.py \
    --config.data.source=text:PATH/input.txt
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = common.characters(batch_size=35, seq_len=4096, total_steps=7, lr=0.0)
  config.model = dict(name="ngram", order=6, capacity=280_000)
  config.learner = dict(name="counting")
  config.optimizer = dict()
  if common.is_smoke(arg):
    common.shrink_characters(config, order=3, capacity=4000)
  return config
