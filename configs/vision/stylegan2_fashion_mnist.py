r"""A small StyleGAN2 of Fashion-MNIST, with its classes (Karras et al. 2020).

Mapping network, modulated convolutions, skip generator and residual
discriminator are those of the paper at 28 x 28 pixels, with at most 64
channels. R1 is computed in every 16th step and path lengths in every 8th. The
Fréchet distance, test/frechet, is computed in the features of a classifier, the
workdir of conv_fashion_mnist; without one, in pixels. Not yet measured.

  python -m input_pipeline.fetch fashion_mnist
  python -m train.main --config=configs/vision/conv_fashion_mnist.py \
    --workdir=runs/conv
  python -m train.main --config=configs/vision/stylegan2_fashion_mnist.py \
    --config.evals.test.classifier=runs/conv

The grids "grid" have the same noise and labels each time. "projected" shows
what the generator makes of test images, the first of "originals".
For few images add adaptive augmentation, --config.task.augment=0.6, whose
mirror images and turns are for pictures of things, not of digits and letters.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = ConfigDict()
  config.seed = 0
  config.total_steps = 6000
  config.batch_size = 32
  config.task = dict(
    name="generative_adversarial",
    r1=1.0,
    r1_every=16,
    path_length=2.0,
    path_every=8,
    mixing=0.9,
  )
  config.model = dict(
    name="stylegan2",
    latent=64,
    styles=64,
    mapping_layers=4,
    base=448,
    most=64,
    products=True,
  )
  config.learner = dict(
    name="adversarial",
    wrap=[dict(name="ema", of="generator", decay=0.998, warmup=True)],
  )
  config.optimizer = dict(name="adam", lr=2e-3, b1=0.0, b2=0.99, eps=1e-8)
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
    projected=dict(
      name="samples", of="projections", split="test", count=16, every_steps=0
    ),
  )
  config.checkpoint = dict(every_steps=1000, keep=2)
  config.mesh = dict(data=-1)
  if common.is_smoke(arg):
    common.shrink(
      config,
      batch_size=8,
      task=dict(r1_every=2, path_every=2, augment=0.6),
      model=dict(latent=4, styles=4, mapping_layers=2, base=32, most=4),
      data=dict(source="fake:image?n=40&size=8&channels=1", ops=""),
    )
    config.evals.grid.count = config.evals.projected.count = 4
    config.evals.projected.every_steps = 0
  return config
