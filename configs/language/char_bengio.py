"""Bengio's neural language model (JMLR 2003) on Shakespeare's characters.

Setting: a context of 15 characters, embeddings of 32, 512 tanh units and
direct connections; windows of 64 characters, batches of 32.
Measured on 2 CPU cores: 2.550 bits per character after 120 s
(benchmarks/language/language_models.md).

  python -m input_pipeline.fetch tinyshakespeare
  python -m train.main --config=configs/language/char_bengio.py
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = common.characters(
    batch_size=32, seq_len=64, total_steps=4000, lr=8e-3
  )
  config.model = dict(name="bengio", order=16, dim=32, hidden=512)
  if common.is_smoke(arg):
    common.shrink_characters(config, order=3, dim=4, hidden=8)
  return config
