"""What learning from CIFAR-10 without labels shares."""

from ml_collections import ConfigDict

from configs import common

_PREPARED = "decode(3)|resize(32)"
_SCALED = "scale(-1, 1)"


def unlabeled_cifar10(
  *,
  total_steps: int,
  batch_size: int,
  image: str = _SCALED,
  views: str = "",
) -> ConfigDict:
  """Self-supervision on 10,000 images, without a task, a model and a learner.

  What is evaluated is a linear classifier of the features, with all labels of
  the training images (test) and with 1,000 of them (few).

  Args:
    total_steps: of training; it is evaluated after each quarter.
    batch_size: images per step.
    image: the ops of the field "image" after it is decoded.
    views: the ops that make views, which come before.
  """
  config = ConfigDict()
  config.seed = 0
  config.total_steps = total_steps
  config.batch_size = batch_size
  config.planned = dict(num_classes=10)
  config.data = dict(
    source="folder:data/cifar10n",
    ops="|".join(filter(None, (_PREPARED, views, image))),
  )
  probe = dict(
    name="linear_probe",
    split="test",
    ops=f"{_PREPARED}|{_SCALED}",
    every_steps=total_steps // 4,
  )
  config.evals = dict(test=dict(probe), few=dict(probe, examples=1000))
  config.checkpoint = dict(every_steps=total_steps // 4, keep=2)
  config.mesh = dict(data=-1)
  return config


def shrink(config: ConfigDict, ops: str = "", **sections) -> None:
  """`common.shrink`, on fake images of 8 x 8 pixels.

  Args:
    config: of `unlabeled_cifar10`.
    ops: of the training; "" for none.
    **sections: replacements in further sections.
  """
  source = "fake:image?n=40&size=8&channels=3&classes=3&dtype=uint8"
  common.shrink(
    config,
    batch_size=8,
    data=dict(source=source, ops="|".join(filter(None, (ops, _SCALED)))),
    **sections,
  )
  for evaluation in config.evals.values():
    evaluation.update(ops=_SCALED, neighbours=3)
  config.evals.few.examples = 10
