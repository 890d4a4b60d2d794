r"""Direct preference optimization of a model that answers.

Rafailov et al., arXiv:2305.18290, with beta 0.1. Setting: the model of
configs/text/sft_chat.py is trained further on pairs of answers.
benchmarks/language/dialogue.py makes the pairs and measures: on one CPU core,
120 steps in 3.1 min, val/accuracy 77.8 %.

  python -m input_pipeline.fetch tinyshakespeare
  python benchmarks/language/dialogue.py \
    --text=data/tinyshakespeare/input.txt --out=data/dialogue
  python -m train.main --config=configs/text/dpo_chat.py \
    --init_from=data/dialogue/sft --workdir=runs/dpo
"""

from ml_collections import ConfigDict

from configs import common
from configs.text import sft_chat


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = sft_chat.get_config()
  config.total_steps = 200
  config.task = dict(name="preference_optimization", beta=0.1)
  config.optimizer.update(lr=2e-4, warmup_steps=20, weight_decay=0.0)
  config.data.update(
    source="jsonl:data/dialogue/preferences/train.jsonl",
    rows=dict(name="preferences", template="chatml"),
  )
  config.evals.val.update(
    source="jsonl:data/dialogue/preferences/validation.jsonl", every_steps=100
  )
  if common.is_smoke(arg):
    common.shrink(
      config,
      batch_size=8,
      model=dict(layers=2, dim=16, heads=2),
      data=dict(source="fake:preferences", seq_len=96),
    )
    config.evals.val.source = "fake:preferences?seed=1"
  return config
