"""XOR by a layer of sigmoid units and a linear output.

The network of Rumelhart, Hinton and Williams (Nature 323, 1986) in small, but
with a linear output and squared errors: 2 - 8 - 1, gradient descent on all four
points. Measured: fit/loss 8e-13 after 5,000 steps.

  python -m train.main --config=configs/textbook/sigmoid_xor.py
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" takes fewer steps."""
  config = ConfigDict()
  config.seed = 0
  config.total_steps = 5000
  config.log_every_steps = 500
  config.batch_size = "all"
  config.task = dict(name="regression")
  config.model = dict(name="mlp", hidden=(8,), activation="sigmoid")
  config.learner = dict(name="supervised")
  config.optimizer = dict(name="sgd", lr=0.5)
  config.data = dict(
    source="fake:points?x=0,0;0,1;1,0;1,1&y=0;1;1;0", split="all"
  )
  config.evals = dict(fit=dict(name="mean", split="all", every_steps=1000))
  config.checkpoint = dict(every_steps=2500, keep=2)
  config.mesh = dict(data=-1)
  if common.is_smoke(arg):
    common.shrink(config)
  return config
