"""A mixture of experts (arXiv:2401.04088) on Shakespeare's characters.

Setting: that of configs/language/char_llama.py, with each feed-forward network
replaced by 4 experts of 256 units, 2 of which are applied to each character.
Measured on 2 CPU cores: 2.710 bits per character after 120 s
(benchmarks/language/language_models.md).

  python -m input_pipeline.fetch tinyshakespeare
  python -m train.main --config=configs/language/char_moe.py
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = common.characters(
    batch_size=12, seq_len=64, total_steps=2000, lr=3e-3
  )
  config.model = dict(
    name="decoder",
    layers=4,
    dim=128,
    heads=4,
    hidden=256,
    positions="rotary",
    norm="rmsnorm",
    activation="swiglu",
    bias=False,
    experts=4,
    experts_per_token=2,
    scan=False,
  )
  if common.is_smoke(arg):
    common.shrink_characters(config, layers=2, dim=16, heads=2, hidden=16)
  return config
