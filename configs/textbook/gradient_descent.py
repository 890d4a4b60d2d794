"""Gradient descent of three batch sizes on one noisy line, side by side.

The whole split, 32 examples or one example a step, at the same rate, for 20
passes over 108 points of y = 2x + 1 with noise of deviation 0.1:

  python -m train.main --workdir=runs/gd/batch \
    --config=configs/textbook/gradient_descent.py:batch
  python -m train.main --workdir=runs/gd/minibatch \
    --config=configs/textbook/gradient_descent.py:minibatch
  python -m train.main --workdir=runs/gd/stochastic \
    --config=configs/textbook/gradient_descent.py:stochastic
  tensorboard --logdir=runs/gd

val/loss of the three, one point a pass in metrics.jsonl and curves.png, are the
curves to compare; a step is not the same amount of data in each. Measured after
one pass and after 20: batch 1.715 and 0.0961, mini-batch 1.053 and 0.0053,
stochastic 0.0076 and 0.0052.
"""

from ml_collections import ConfigDict

from configs import common

# The arguments: (examples of a step, steps of a pass).
VARIANTS = {
  "": ("all", 1),
  "batch": ("all", 1),
  "minibatch": (32, 3),
  "stochastic": (1, 108),
}


def get_config(arg: str = "") -> ConfigDict:
  """The experiment of one batch size; "smoke" takes fewer steps."""
  smoke = arg not in VARIANTS and common.is_smoke(arg)
  batch_size, steps = VARIANTS["" if smoke else arg]
  config = ConfigDict()
  config.seed = 0
  config.total_steps = 20 * steps
  config.log_every_steps = steps
  config.batch_size = batch_size
  config.task = dict(name="regression")
  config.model = dict(name="mlp", hidden=())
  config.learner = dict(name="supervised")
  config.optimizer = dict(name="sgd", lr=0.1)
  config.data = dict(source="fake:linear?n=120&slope=2&intercept=1&noise=0.1")
  config.evals = dict(
    val=dict(name="mean", split="validation", every_steps=steps)
  )
  config.checkpoint = dict(every_steps=20 * steps, keep=1)
  config.mesh = dict(data=-1)
  if batch_size == 1:
    config.mesh = dict(data=1, tensor=-1)  # one example is not divided
  if smoke:
    common.shrink(config)
  return config
