"""Diffusion and flow matching on Fashion-MNIST, without the model."""

from ml_collections import ConfigDict

from configs import common


def image_diffusion(total_steps: int) -> ConfigDict:
  """Diffusion or flow matching on Fashion-MNIST, without its model."""
  config = ConfigDict()
  config.seed = 0
  config.total_steps = total_steps
  config.batch_size = 64
  config.task = dict(name="diffusion", steps=25, guidance=1.0)
  config.learner = dict(
    name="supervised", wrap=[dict(name="ema", decay=0.999, warmup=True)]
  )
  config.optimizer = dict(
    name="adamw",
    lr=1e-3,
    schedule="cosine",
    warmup_steps=200,
    weight_decay=0.0,
    clip_norm=1.0,
  )
  config.planned = dict(num_classes=10)
  config.data = dict(
    source="idx:data/fashion_mnist", ops="decode(1)|resize(28)|scale(-1, 1)"
  )
  config.evals = dict(
    test=dict(
      name="frechet",
      split="test",
      metric="frechet",
      classifier="",
      num_samples=10_000,
      every_steps=0,
    ),
    grid=dict(name="samples", split="test", count=64, every_steps=1000),
  )
  config.checkpoint = dict(every_steps=1000, keep=2)
  config.mesh = dict(data=-1)
  return config


def shrink_image_diffusion(config: ConfigDict, model: dict) -> None:
  """`common.shrink` for `image_diffusion`; `model` replaces settings."""
  common.shrink(
    config,
    batch_size=8,
    task=dict(timesteps=20, steps=2, guidance=2.0),
    model=model,
    data=dict(source="fake:image?n=40&size=8&channels=1", ops=""),
  )
  config.evals.grid.count = 4
