"""SimCLR: contrastive learning of a small ResNet on CIFAR-10.

Chen et al., 2020, arXiv:2002.05709, without labels, on 10,000 images. Sized for
a CPU: three blocks, and views of 24 x 24 pixels, in which objects are as large
as in whole images of 32 x 32. Not yet measured; meant for 45 minutes of two
cores.

  python -m input_pipeline.fetch cifar10n
  python -m train.main --config=simclr_cifar10

test/accuracy is that of a linear classifier of the features with the labels of
all 10,000 images, few/accuracy with 1,000 of them. A classifier begins with
what was learned by --init_from=WORKDIR and config.init_from.network="backbone".

The views are crops, mirrored, with other colours or none, as in the paper for
CIFAR-10. They make images of a kind alike only where these changes do not
change the kind: remove "flip" for digits and letters, and "color_jitter" and
"grayscale" where colours tell classes apart.
"""

from ml_collections import ConfigDict

from configs import common
from configs.vision.parts.self_supervision import shrink, unlabeled_cifar10

_VIEW = (
  "random_resized_crop(24, area=(0.2, 1.0))|flip"
  "|color_jitter(0.4, 0.4, 0.4, 0.1, p=0.8)|grayscale(0.2)|scale(-1, 1)"
)


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = unlabeled_cifar10(
    total_steps=5200, batch_size=128, views=f"views({_VIEW!r}, 2)"
  )
  config.task = dict(name="contrastive_learning", temperature=0.5)
  config.model = dict(
    name="projected",
    backbone=dict(name="resnet", blocks=(1, 1, 1), stem="half", width=64),
    hidden=(256,),
    out=64,
    batchnorm=True,
  )
  config.learner = dict(
    name="supervised", wrap=(dict(name="ema", decay=0.99, warmup=True),)
  )
  config.optimizer = dict(
    name="adamw",
    lr=2e-3,
    schedule="cosine",
    warmup_steps=100,
    weight_decay=0.05,
  )
  if common.is_smoke(arg):
    shrink(config, "views('random_resized_crop(8)|flip|scale(-1, 1)', 2)")
    config.model.update(hidden=(8,), out=4)
    config.model.backbone.update(width=4, blocks=(1, 1))
    config.optimizer.warmup_steps = 1
  return config
