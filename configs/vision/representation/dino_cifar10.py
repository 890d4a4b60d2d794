"""DINO: self-distillation of a small ResNet on CIFAR-10.

Caron et al., 2021, arXiv:2104.14294, without labels, on 10,000 images: two
views of 24 x 24 pixels, in which objects are as large as in whole images of 32
x 32, and two crops of 12 x 12. Not yet measured; meant for 45 minutes of two
cores. A vision transformer as body, which needs more steps, is
--config.model.backbone='{"name": "vit", "patch": 4, "layers": 4, "dim": 128,
"heads": 4, "hidden": 256, "pool": "gap"}'.

  python -m input_pipeline.fetch cifar10n
  python -m train.main --config=dino_cifar10

test/accuracy is that of a linear classifier of the teacher's features with the
labels of all 10,000 images, few/accuracy with 1,000 of them, and knn_accuracy
that of nearest neighbours. train/teacher_entropy near 0 or near log(1024) = 6.9
shows a collapse. A classifier begins with what was learned by
--init_from=WORKDIR and config.init_from.network="backbone".

The views are crops, mirrored, with other colours or solarized. Remove what
changes the kind of your images: "flip" for digits and letters, "color_jitter",
"grayscale" and "solarize" where colours tell classes apart.
"""

from ml_collections import ConfigDict

from configs import common
from configs.vision.parts.self_supervision import shrink, unlabeled_cifar10

_LARGE = (
  "random_resized_crop(24, area=(0.3, 1.0))|flip"
  "|color_jitter(0.4, 0.4, 0.2, 0.1, p=0.8)|grayscale(0.2)|solarize(p=0.1)"
  "|scale(-1, 1)"
)
_SMALL = (
  "random_resized_crop(12, area=(0.1, 0.3))|flip"
  "|color_jitter(0.4, 0.4, 0.2, p=0.8)|grayscale(0.2)|scale(-1, 1)"
)


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = unlabeled_cifar10(
    total_steps=2300,
    batch_size=128,
    views=f"views({_LARGE!r}, 2)|views({_SMALL!r}, 2, name='crop')",
  )
  config.task = dict(
    name="self_distillation",
    crops=2,
    teacher_temperature=0.04,
  )
  config.model = dict(
    name="projected",
    backbone=dict(name="resnet", blocks=(1, 1, 1), stem="half", width=64),
    hidden=(256,),
    out=64,
    activation="gelu",
    batchnorm=True,
    prototypes=1024,
  )
  config.learner = dict(
    name="supervised",
    wrap=(dict(name="ema", decay=0.99, end=1.0, lend="teacher"),),
  )
  config.optimizer = dict(
    name="adamw",
    lr=1e-3,
    schedule="cosine",
    warmup_steps=150,
    weight_decay=0.05,
    clip_norm=3.0,
  )
  if common.is_smoke(arg):
    shrink(
      config,
      "views('random_resized_crop(8)|scale(-1, 1)', 2)"
      "|views('random_resized_crop(4)|scale(-1, 1)', 2, name='crop')",
      task=dict(crops=2),
    )
    config.model.update(hidden=(8,), out=4, prototypes=16)
    config.model.backbone.update(width=4, blocks=(1, 1))
    config.optimizer.warmup_steps = 1
  return config
