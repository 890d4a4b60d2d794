"""A pole balanced on a cart (Barto, Sutton and Anderson 1983), by A2C.

The environment is Gymnasium's CartPole-v1, which counts as solved at a mean
return of 475 over 100 episodes of at most 500 steps. 64 environments are played
for 500 updates of 128 steps, 4.1 million steps in all, on 2 CPU cores in 20 to
27 s (16 to 25 s of CPU time), start and compilation included. Measured:
val/return 500.0 for each of the seeds 0, 1 and 2, in all of the 100 episodes.

  python -m train.main --config=configs/control/cartpole.py
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny."""
  config = ConfigDict()
  config.seed = 0
  config.total_steps = 500
  config.log_every_steps = 50
  config.batch_size = 64
  config.task = dict(
    name="policy_gradient", value_weight=0.5, entropy_weight=0.01
  )
  config.model = dict(name="policy_value", hidden=(64, 64))
  # The cart takes hundreds of steps to drift off its track, which a discount
  # of 0.99 would hide from the policy.
  config.learner = dict(
    name="actor_critic", steps=128, discount=0.999, gae_lambda=0.98, gather=True
  )
  config.optimizer = dict(
    name="adam", lr=3e-3, schedule="linear", end_lr=0.0, clip_norm=0.5
  )
  config.data = dict(source="environment:cartpole")
  config.evals = dict(val=dict(name="episodes", count=100, every_steps=100))
  config.checkpoint = dict(every_steps=100, keep=2)
  config.mesh = dict(data=-1)
  if common.is_smoke(arg):
    common.shrink(
      config,
      batch_size=8,
      model=dict(hidden=(8,)),
      learner=dict(steps=4),
      data=dict(source="environment:cartpole?most_steps=20"),
    )
    config.evals.val["count"] = 8
  return config
