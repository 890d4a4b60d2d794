"""Blank infilling (GLM, arXiv:2103.10360) on Shakespeare's characters.

Setting: that of configs/language/lm_shakespeare.py. Four fifths of the rows
have one long blank at the end, before which the context is bidirectional; the
others have many short blanks (input_pipeline/ops/infilling.py). Evaluation runs
from left to right: everything but the first character of a window is one blank,
and each character is predicted once, so that the loss is comparable with that
of the other models.
Measured on 2 CPU cores: 2.747 bits per character after 120 s
(benchmarks/language/language_models.md).

  python -m input_pipeline.fetch tinyshakespeare
  python -m train.main --config=configs/language/char_glm.py
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
    bias=False,
    block_positions=True,
    scan=False,
  )
  config.data.ops = "blank_infilling(long=0.8)"
  config.evals.val.ops = "trailing_blank"
  del config.evals.text
  if common.is_smoke(arg):
    common.shrink_characters(config, layers=2, dim=16, heads=2)
  return config
