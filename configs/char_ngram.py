"""Interpolated Kneser-Ney n-grams of Shakespeare's characters.

  python -m train.main --config=configs/char_ngram.py \
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
    common.shrink_characters(config, order=3, capacity=200)
  return config
