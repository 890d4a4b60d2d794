"""Bengio's neural model (JMLR 2003) of Shakespeare's characters.

Setting: 15 characters in, 32 wide each, 512 tanh units, direct connections;
windows of 64, batch 32.
Measured on 2 CPU cores: 2.550 bits a character after 120 s
(benchmarks/language/language_models.md).

  python -m train.main --config=configs/language/char_bengio.py \
    --config.data.source=text:PATH/input.txt
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
