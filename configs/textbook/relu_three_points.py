"""A 1 - 10 - 1 relu network on (1, 2), (2, 4), (3, 6), tested at x = 4.

Gradient descent on all three points, rate 0.01, 1,000 epochs. Measured:
at_4/loss 5.6e-7, the squared error, so the answer is within 7.5e-4 of 8.

  python -m train.main --config=configs/textbook/relu_three_points.py
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" takes fewer steps."""
  config = ConfigDict()
  config.seed = 0
  config.total_steps = 1000
  config.log_every_steps = 100
  config.batch_size = "all"
  config.task = dict(name="regression")
  config.model = dict(name="mlp", hidden=(10,), activation="relu")
  config.learner = dict(name="supervised")
  config.optimizer = dict(name="sgd", lr=0.01)
  config.data = dict(source="fake:points?x=1;2;3&y=2;4;6", split="all")
  # Of one point: the squared error of the answer at x = 4, which should be 8.
  config.evals = dict(
    at_4=dict(
      name="mean", source="fake:points?x=4&y=8", split="all", every_steps=100
    )
  )
  config.checkpoint = dict(every_steps=500, keep=2)
  config.mesh = dict(data=-1)
  if common.is_smoke(arg):
    common.shrink(config)
  return config
