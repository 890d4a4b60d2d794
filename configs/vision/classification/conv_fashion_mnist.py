"""A small convolutional network on Fashion-MNIST (Xiao et al. 2017).

Measured with the first 15,000 training images on 2 CPU cores, used as two
devices (XLA_FLAGS=--xla_force_host_platform_device_count=2): test/accuracy
90.57 % in 4 min 20 s.

  python -m input_pipeline.fetch fashion_mnist
  python -m train.main --config=conv_fashion_mnist

This trains on all 60,000 images; --config.data.split='train[:15000]' selects
the first 15,000.

The augmentation, mirroring and shifts of two pixels, is for pictures of things,
such as clothes. The mirror image of a digit or a letter is another one or none:
for data of that kind remove "flip" from config.data.ops:
--config.data.ops='decode(1)|resize(28)|random_crop(28, pad=2)|scale(-1, 1)'.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = ConfigDict()
  config.seed = 0
  config.total_steps = 2800
  config.batch_size = 128
  config.task = dict(name="image_classification", label_smoothing=0.1)
  config.model = dict(
    name="conv",
    variant="cifar",
    features=(32, 64, 256),
    batchnorm=True,
    dropout=0.3,
  )
  config.learner = dict(name="supervised", ema=0.995)
  config.optimizer = dict(
    name="adamw",
    lr=2e-3,
    schedule="cosine",
    warmup_steps=100,
    weight_decay=0.05,
  )
  config.planned = dict(num_classes=10)
  config.data = dict(
    source="idx:data/fashion_mnist",
    ops="decode(1)|resize(28)|flip|random_crop(28, pad=2)|scale(-1, 1)",
  )
  config.evals = dict(
    test=dict(
      name="classification",
      split="test",
      ops="decode(1)|resize(28)|scale(-1, 1)",
      every_steps=700,
    ),
  )
  config.checkpoint = dict(every_steps=700, keep=2)
  config.mesh = dict(data=-1)
  if common.is_smoke(arg):
    common.shrink(
      config,
      batch_size=8,
      data=dict(source="fake:image?n=40&size=8&channels=1", ops=""),
    )
    config.evals.test.ops = ""
  return config
