"""A wide residual network, WRN-10-2, on CIFAR-10 (arXiv:1605.07146).

Sized for a CPU; the paper's WRN-28-10 of 36.5M parameters has
--config.model.blocks='(4, 4, 4)' --config.model.width=160. Not yet measured;
meant for 45 minutes of two cores.

  python -m input_pipeline.fetch cifar10
  python -m train.main --config=wide_resnet_cifar10

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
  config = cifar10(total_steps=4500)
  config.model = dict(
    name="resnet",
    blocks=(1, 1, 1),
    bottleneck=False,
    version=2,
    stem="cifar",
    stem_width=16,
    width=32,
  )
  config.optimizer = one_cycle_sgd(lr=0.1)
  if common.is_smoke(arg):
    shrink_images(config, width=4, stem_width=4)
  return config
