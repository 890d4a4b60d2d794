"""Rosenblatt's perceptron (Psychological Review 65, 1958) learns AND, or OR.

One example a step, rate 1, from weights of zero: each example that is on the
wrong side of the line, or on it, moves the weights by itself. Measured:
fit/accuracy 1.0 from the fourth of the ten passes on for AND, and at the tenth
for OR.

  python -m train.main --config=configs/textbook/perceptron.py:and
  python -m train.main --config=configs/textbook/perceptron.py:or

XOR (:xor) has no such line, and does not converge.
"""

from ml_collections import ConfigDict

from configs import common

LABELS = {"and": "0;0;0;1", "or": "0;1;1;1", "xor": "0;1;1;0"}


def get_config(arg: str = "") -> ConfigDict:
  """The experiment of a function; "smoke" is AND's in fewer steps."""
  smoke = arg not in LABELS and common.is_smoke(arg)
  labels = LABELS.get(arg, LABELS["and"])
  config = ConfigDict()
  config.seed = 0
  config.total_steps = 40
  config.log_every_steps = 4
  config.batch_size = 1
  config.task = dict(name="binary_classification", loss="perceptron")
  config.model = dict(name="mlp", hidden=(), out_features=1)
  config.learner = dict(name="supervised")
  config.optimizer = dict(name="sgd", lr=1.0)
  config.data = dict(
    source=f"fake:points?x=0,0;0,1;1,0;1,1&label={labels}", split="all"
  )
  config.evals = dict(fit=dict(name="mean", split="all", every_steps=4))
  config.checkpoint = dict(every_steps=20, keep=2)
  config.mesh = dict(data=1, tensor=-1)  # one example is not divided
  if smoke:
    common.shrink(config)
  return config
