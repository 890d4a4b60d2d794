"""A small vision transformer on CIFAR-10 (Dosovitskiy et al. 2021).

Sized for a CPU: four layers of width 96 over tokens of 4 x 4 pixels, which two
convolutions make (arXiv:2106.14881). With 10,000 training images (below)
test/accuracy was 64.50 % on 2 shared CPU cores, used as two devices, in 19 min,
and with patches in their place, --config.model.stem=patch, 56.65 %, both
without mirror images at the test.

  python -m input_pipeline.fetch cifar10
  python -m train.main --config=vit_cifar10

This trains on all 50,000 images. After `python -m input_pipeline.fetch
cifar10n`, --config.data.source=folder:data/cifar10n selects 10,000 training and
2,000 test images, for which the number of steps is chosen.

The augmentation, mirroring, shifts of four pixels and grey squares of eight, is
for photographs of objects and animals. For digits, letters, signs, and all else
that has another meaning when it is mirrored, remove "flip" from config.data.ops
and set --config.evals.test.flips=False.
"""

from ml_collections import ConfigDict

from configs import common
from configs.vision.parts.cifar10 import cifar10, shrink_images


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = cifar10(total_steps=3400)
  config.model = dict(
    name="vit",
    patch=4,
    layers=4,
    dim=96,
    heads=3,
    hidden=192,
    pool="gap",
    stem="convolutions",
    activation="gelu",
  )
  config.optimizer = dict(
    name="adamw",
    lr=2e-3,
    schedule="cosine",
    warmup_steps=340,
    weight_decay=0.05,
    clip_norm=1.0,
  )
  if common.is_smoke(arg):
    shrink_images(config, layers=2, dim=16, heads=2, hidden=32)
    config.optimizer.warmup_steps = 1
  return config
