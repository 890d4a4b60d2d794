"""A 10 - 10 - 1 network without activation: still a linear model.

Stochastic gradient descent, rate 0.01, batch 16, 100 epochs over 192 points of
y = sum(x) + noise of deviation 0.1 in ten dimensions: no loss below that of the
noise, 0.01, can be expected of held-out points. Measured: val/loss 0.0113.

  python -m train.main --config=configs/textbook/two_linear_layers.py
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" takes fewer steps."""
  config = ConfigDict()
  config.seed = 0
  config.total_steps = 100 * 12
  config.log_every_steps = 120
  config.batch_size = 16
  config.task = dict(name="regression")
  config.model = dict(name="mlp", hidden=(10,), activation="identity")
  config.learner = dict(name="supervised")
  config.optimizer = dict(name="sgd", lr=0.01)
  config.data = dict(source="fake:linear?n=214&features=10&slope=1&noise=0.1")
  config.evals = dict(
    val=dict(name="mean", split="validation", every_steps=120)
  )
  config.checkpoint = dict(every_steps=600, keep=2)
  config.mesh = dict(data=-1)
  if common.is_smoke(arg):
    common.shrink(config)
  return config
