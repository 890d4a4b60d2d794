"""What the classifiers of CIFAR-10 share."""

from ml_collections import ConfigDict

from configs import common


def cifar10(*, total_steps: int) -> ConfigDict:
  """Classification of CIFAR-10, without a model and an optimizer.

  What is evaluated is the average of the parameters, on test images and their
  mirror images.

  Args:
    total_steps: of training; the test images are classified after each quarter.
  """
  config = ConfigDict()
  config.seed = 0
  config.total_steps = total_steps
  config.batch_size = 128
  config.task = dict(name="image_classification", label_smoothing=0.1)
  config.learner = dict(
    name="supervised", wrap=(dict(name="ema", decay=0.995, warmup=True),)
  )
  config.planned = dict(num_classes=10)
  config.data = dict(
    source="folder:data/cifar10",
    ops="decode(3)|resize(32)|random_crop(32, pad=4)|flip|cutout(8, fill=127)"
    "|scale(-1, 1)",
  )
  every = total_steps // 4
  config.evals = dict(
    test=dict(
      name="classification",
      split="test",
      ops="decode(3)|resize(32)|scale(-1, 1)",
      flips=True,
      every_steps=every,
    ),
  )
  config.checkpoint = dict(every_steps=every, keep=2)
  config.mesh = dict(data=-1)
  return config


def one_cycle_sgd(lr: float) -> dict:
  """The optimizer of the convolutional networks; `lr` is at its peak."""
  return dict(
    name="sgd",
    momentum=0.9,
    nesterov=True,
    lr=lr,
    schedule="one_cycle",
    weight_decay=5e-4,
  )


def shrink_images(config: ConfigDict, size: int = 8, **model) -> None:
  """`common.shrink` for a classifier, fake images of size x size pixels.

  `model` replaces settings of the model.
  """
  common.shrink(
    config,
    batch_size=8,
    model=model,
    data=dict(source=f"fake:image?n=40&size={size}&channels=3", ops=""),
  )
  for evaluation in config.evals.values():
    evaluation.ops = ""
