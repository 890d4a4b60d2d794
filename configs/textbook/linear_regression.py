"""The textbook fit of y = 2x by full-batch gradient descent.

Measured: train/loss 5e-10 after 50 steps, 2e-14 after 100.

  python -m train.main --config=configs/textbook/linear_regression.py
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" takes fewer steps."""
  config = ConfigDict()
  config.seed = 0
  config.total_steps = 100
  config.batch_size = "all"
  config.task = dict(name="regression")
  config.model = dict(name="mlp", hidden=())
  config.learner = dict(name="supervised")
  config.optimizer = dict(name="sgd", lr=0.3)
  config.data = dict(source="fake:linear?n=120&slope=2")
  config.evals = dict(val=dict(name="mean", split="validation", every_steps=50))
  config.checkpoint = dict(every_steps=50, keep=2)
  config.mesh = dict(data=-1)
  if common.is_smoke(arg):
    common.shrink(config)
  return config
