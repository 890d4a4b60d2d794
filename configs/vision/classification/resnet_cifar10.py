"""A small residual network on CIFAR-10 (He et al. 2016).

Sized for a CPU: it works at half the height and width after two convolutions,
and has one block of two convolutions in each of three stages. ResNet-18 with
the paper's width is --config.model.depth=18 --config.model.blocks=None
--config.model.stem=cifar. With 10,000 training images (below) test/accuracy was
80.20 % on 2 CPU cores, used as two devices, in 29 min; 78.15 % without mirror
images at the test.

  python -m input_pipeline.fetch cifar10
  python -m train.main --config=resnet_cifar10

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
  config = cifar10(total_steps=6000)
  config.model = dict(
    name="resnet",
    blocks=(1, 1, 1),
    bottleneck=False,
    stem="deep_half",
    width=64,
  )
  config.progressive = dict(sizes=(24,), shares=(0.4,))
  config.optimizer = one_cycle_sgd(lr=0.1)
  if common.is_smoke(arg):
    shrink_images(config, width=4)
    config.progressive.sizes = (4,)
  return config
