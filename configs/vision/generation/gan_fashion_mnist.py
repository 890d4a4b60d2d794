r"""A small DCGAN with R1 on Fashion-MNIST (Radford et al. 2016).

The Fréchet distance is computed in the features of a classifier, the workdir of
conv_fashion_mnist; without one, in pixels. Measured on 2 CPU cores, used as two
devices, with 15,000 training images: 54.0 after 6 min 22 s, where the untrained
generator has 723.8.

  python -m input_pipeline.fetch fashion_mnist
  python -m train.main --config=conv_fashion_mnist \
    --workdir=runs/conv
  python -m train.main --config=gan_fashion_mnist \
    --config.evals.frechet.classifier=runs/conv

This trains on all 60,000 images; --config.data.split='train[:15000]' selects
the first 15,000.

There is no augmentation, so the config fits digits and letters too.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = ConfigDict()
  config.seed = 0
  config.total_steps = 3000
  config.batch_size = 64
  config.task = dict(name="generative_adversarial", r1=1.0)
  config.model = dict(name="gan", latent=64, width=32)
  config.learner = dict(name="adversarial", ema=0.995)
  config.optimizer = dict(
    name="adam",
    lr=[("generator", 4e-4), ("discriminator", 4e-4)],
    b1=0.0,
    b2=0.99,
  )
  config.data = dict(
    source="idx:data/fashion_mnist", ops="decode(1)|resize(28)|scale(-1, 1)"
  )
  config.evals = dict(
    frechet=dict(name="frechet", split="test", classifier="", every_steps=1000),
    grid=dict(name="samples", split="test", count=64, every_steps=1000),
  )
  config.checkpoint = dict(every_steps=1000, keep=2)
  config.mesh = dict(data=-1)
  if common.is_smoke(arg):
    common.shrink(
      config,
      batch_size=8,
      model=dict(latent=4, width=4),
      data=dict(source="fake:image?n=40&size=8&channels=1", ops=""),
    )
    config.evals.grid.count = 4
  return config
