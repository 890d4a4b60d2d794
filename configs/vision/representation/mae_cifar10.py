"""A masked autoencoder of a small vision transformer on CIFAR-10.

He et al., 2022, arXiv:2111.06377, without labels, on 10,000 images: three
quarters of the 64 patches of 4 x 4 pixels are hidden. Not yet measured; meant
for 45 minutes of two cores.

  python -m input_pipeline.fetch cifar10n
  python -m train.main --config=mae_cifar10

test/accuracy is that of a linear classifier of the features with the labels of
all 10,000 images, few/accuracy with 1,000 of them; WORKDIR/samples has visible
patches with the others reconstructed. A classifier begins with what was learned
by --init_from=WORKDIR and config.init_from.network="encoder".

The augmentation, crops and mirroring, is for photographs of objects and
animals: remove "flip" for digits and letters.
"""

from ml_collections import ConfigDict

from configs import common
from configs.vision.parts.self_supervision import shrink, unlabeled_cifar10


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = unlabeled_cifar10(
    total_steps=5200,
    batch_size=256,
    image="random_resized_crop(32, area=(0.3, 1.0))|flip|scale(-1, 1)",
  )
  config.task = dict(name="masked_image_modeling", patch=4, ratio=0.75)
  config.model = dict(
    name="mae",
    encoder=dict(
      name="vit",
      patch=4,
      layers=6,
      dim=128,
      heads=4,
      hidden=256,
      pool="gap",
      activation="gelu",
    ),
    layers=1,
    dim=64,
    heads=2,
    hidden=128,
    activation="gelu",
  )
  config.learner = dict(
    name="supervised", wrap=(dict(name="ema", decay=0.995, warmup=True),)
  )
  config.optimizer = dict(
    name="adamw",
    lr=2e-3,
    b2=0.95,
    schedule="cosine",
    warmup_steps=300,
    weight_decay=0.05,
    clip_norm=3.0,
  )
  config.evals.pictures = dict(
    name="samples",
    of="reconstructions",
    split="test",
    ops=config.evals.test.ops,
    count=64,
    every_steps=0,
  )
  if common.is_smoke(arg):
    del config.evals.pictures
    shrink(config, task=dict(patch=2))
    config.model.update(layers=1, dim=8, heads=2, hidden=16)
    config.model.encoder.update(patch=2, layers=2, dim=16, heads=2, hidden=32)
    config.optimizer.warmup_steps = 1
  return config
