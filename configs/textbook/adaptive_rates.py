"""Adam, RMSProp and Adamax on the Adult table, side by side.

A network of 64 relu units reads UCI's Adult table; the rate is 1e-3, the batch
128, the length two passes:

  python -m input_pipeline.fetch adult
  python -m train.main --workdir=runs/rates/adam \
    --config=configs/textbook/adaptive_rates.py:adam
  python -m train.main --workdir=runs/rates/rmsprop \
    --config=configs/textbook/adaptive_rates.py:rmsprop
  python -m train.main --workdir=runs/rates/adamax \
    --config=configs/textbook/adaptive_rates.py:adamax
  tensorboard --logdir=runs/rates

val/loss of the three are the curves to compare. Measured after 50 and 400
steps: Adam 0.532 and 0.319, RMSProp 0.518 and 0.318, Adamax 0.561 and 0.330.

Adam's bias correction divides the moments by 1 - b^t (Kingma and Ba,
arXiv:1412.6980), where t counts updates. A correction that counts epochs
instead, as some examples have it, divides by 0.1 and 0.001 for the whole first
epoch: its steps grow to twice their size, and then fall to a third.
"""

from ml_collections import ConfigDict

from configs import common
from configs.tabular import adult

RULES = ("adam", "rmsprop", "adamax")


def get_config(arg: str = "") -> ConfigDict:
  """The experiment with one of the rules; "smoke" is Adam's on a fake table."""
  smoke = arg not in RULES and common.is_smoke(arg)
  config = adult.get_config("smoke" if smoke else "")
  config.optimizer = dict(name=arg if arg in RULES else "adam", lr=1e-3)
  config.model.hidden = (64,)
  if not smoke:
    config.total_steps = 400
    config.log_every_steps = 20
    config.batch_size = 128
    config.evals.val.every_steps = 50
    config.checkpoint.every_steps = 200
  return config
