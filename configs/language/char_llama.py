"""A Llama-style decoder (arXiv:2302.13971) on Shakespeare's characters.

Setting: that of configs/language/lm_shakespeare.py with rotary positions,
RMSNorm and SwiGLU: 4 layers, 4 heads, width 128, windows of 64 characters,
batches of 12.
Measured on 2 CPU cores: 2.360 bits per character after 120 s
(benchmarks/language/language_models.md).

  python -m input_pipeline.fetch tinyshakespeare
  python -m train.main --config=configs/language/char_llama.py
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
    positions="rotary",
    norm="rmsnorm",
    activation="swiglu",
    bias=False,
    scan=False,
  )
  if common.is_smoke(arg):
    common.shrink_characters(config, layers=2, dim=16, heads=2)
  return config
