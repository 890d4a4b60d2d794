"""VGG-16 with batch norm on CIFAR-10 (Simonyan and Zisserman 2015).

Sized for a CPU: a quarter of the paper's channels, and one dense layer, as the
poolings leave one pixel of 32 x 32. With 10,000 training images (below)
test/accuracy was 79.15 % on 2 CPU cores, used as two devices, in 11 min.

  python -m input_pipeline.fetch cifar10
  python -m train.main --config=vgg_cifar10

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
from configs.vision.parts.cifar10 import cifar10, one_cycle_sgd, shrink_images


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = cifar10(total_steps=3400)
  config.model = dict(
    name="vgg", depth=16, width=16, hidden=(), grid=1, batchnorm=True
  )
  config.optimizer = one_cycle_sgd(lr=0.1)
  if common.is_smoke(arg):
    shrink_images(config, size=32, width=4)
  return config
