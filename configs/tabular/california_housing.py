"""House prices in California's districts, 1990 (Pace and Barry 1997).

The table is housing.csv of https://github.com/ageron/handson-ml2, in
datasets/housing: 20,640 districts, of which 207 lack total_bedrooms. The
target is a z-score, so that val/loss is the share of its variance that is not
explained, 1 - R^2.

  python -m train.main --config=configs/tabular/california_housing.py \
    --config.data.source=csv:PATH/housing.csv
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on a fake table."""
  config = ConfigDict()
  config.seed = 0
  config.total_steps = 3000
  config.log_every_steps = 100
  config.batch_size = 128
  config.task = dict(name="regression")
  config.model = dict(name="mlp", hidden=(128, 128))
  config.learner = dict(name="supervised", ema=0.99)
  config.optimizer = dict(
    name="adamw", lr=2e-3, schedule="cosine", warmup_steps=50, weight_decay=0.01
  )
  config.data = dict(
    source="csv:data/california_housing/housing.csv",
    rows=dict(name="columns", target="median_house_value", scale_target=True),
  )
  config.evals = dict(
    val=dict(name="mean", split="validation", every_steps=500)
  )
  config.checkpoint = dict(every_steps=500, keep=2)
  config.mesh = dict(data=-1)
  if common.is_smoke(arg):
    common.shrink(
      config,
      batch_size=8,
      model=dict(hidden=(8,)),
      data=dict(
        source="fake:table",
        rows=dict(
          name="columns", target="price", exclude=("income",), scale_target=True
        ),
      ),
    )
  return config
