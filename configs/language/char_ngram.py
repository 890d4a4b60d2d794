"""An interpolated Kneser-Ney n-gram model of Shakespeare's characters.

Setting: 6-grams, continuation counts for the lower orders, and discounts
estimated for each order; one epoch in windows of 4,096 characters. N-grams that
cross the border of a window are not counted. An estimate over the whole text at
once (input_pipeline/cleaning/parts/ngram.py) gives 2.248 bits per character;
higher orders give more. The tables have room for every n-gram of the data. The
first line of a run states how much of the data its steps count; for other data,
set config.total_steps as it advises.
Measured on 2 CPU cores: 2.249 bits per character after 4 s
(benchmarks/language/language_models.md).

  python -m input_pipeline.fetch tinyshakespeare
  python -m train.main --config=configs/language/char_ngram.py
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = common.characters(batch_size=35, seq_len=4096, total_steps=7, lr=0.0)
  config.model = dict(name="ngram", order=6, capacity=None)
  config.learner = dict(name="counting")
  config.optimizer = dict()
  if common.is_smoke(arg):
    common.shrink_characters(config, order=3, capacity=4000)
  return config
