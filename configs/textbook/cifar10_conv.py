"""A small convolutional network on CIFAR-10 (Krizhevsky 2009), in ten epochs.

Conv 64 (3 x 3, valid) - max pool 2 - Conv 128 - flatten - dense 256 - dense 10
with relu: 5,616,266 parameters. Pixels are divided by 255, and the last fifth
of the training images validates. Adam at its defaults, batch 64, Glorot's
initial weights. Measured: val/accuracy 59.7, 65.2, 66.0, 68.1, 67.5, 69.1, 69.2
and 68.0 % after the first eight epochs; val/loss then rises, and the best
checkpoint is kept. With He's initial weights the best was 66.8 %.

  python -m input_pipeline.fetch cifar10
  python -m train.main --config=configs/textbook/cifar10_conv.py

The published figure to compare with is 69 % after ten epochs of the same
network in Keras.

There is no augmentation, so the config fits digits and letters too.
"""

from ml_collections import ConfigDict

from configs import common

_EPOCH = 40_000 // 64


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = ConfigDict()
  config.seed = 0
  config.total_steps = 10 * _EPOCH
  config.log_every_steps = _EPOCH // 5
  config.batch_size = 64
  config.task = dict(name="image_classification")
  config.model = dict(
    name="conv", variant="cifar", padding="valid", pooling=(2, 1), init="glorot"
  )
  config.learner = dict(name="supervised")
  config.optimizer = dict(name="adam", lr=1e-3)
  config.planned = dict(num_classes=10)
  config.data = dict(
    source="folder:data/cifar10",
    split="train[:80%]",
    ops="decode(3)|resize(32)|scale(0, 1)",
  )
  config.evals = dict(
    val=dict(name="classification", split="train[80%:]", every_steps=_EPOCH),
    test=dict(name="classification", split="test", every_steps=0),
  )
  config.checkpoint = dict(every_steps=_EPOCH, keep=2, keep_best="val/accuracy")
  config.mesh = dict(data=-1)
  if common.is_smoke(arg):
    common.shrink(
      config,
      batch_size=8,
      model=dict(features=(4, 4, 8)),
      data=dict(source="fake:image?n=40&size=10&channels=3", ops=""),
    )
  return config
