"""Elman's recurrent network (1990) on Shakespeare's characters.

Setting: one layer of 256 units; windows of 64 characters, batches of 32.
Measured on 2 CPU cores: 2.308 bits per character after 120 s
(benchmarks/language/language_models.md).

  python -m input_pipeline.fetch tinyshakespeare
  python -m train.main --config=configs/language/char_elman.py
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = common.characters(
    batch_size=32, seq_len=64, total_steps=2000, lr=4e-3
  )
  config.model = dict(name="rnn", cell="elman", layers=1, dim=128, hidden=256)
  if common.is_smoke(arg):
    common.shrink_characters(config, dim=8, hidden=8)
  return config
