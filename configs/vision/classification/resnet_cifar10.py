"""ResNet-18 with a stem for small images on CIFAR-10 (He et al. 2016).

Sized for a CPU: the first layer has 16 channels where the paper has 64, which
is a sixteenth of the computation. Measured with the first 10,000 training
images and 2,000 test images (JPEG copies of them) on 2 CPU cores, used as two
devices: test/accuracy 74.15 % in 16 min 24 s.

  python -m input_pipeline.fetch cifar10
  python -m train.main --config=resnet_cifar10

This trains on all 50,000 images. After `python -m input_pipeline.fetch
cifar10n`, --config.data.source=folder:data/cifar10n selects those 12,000.

The augmentation, mirroring and shifts of four pixels, is for photographs of
objects and animals. For digits, letters, signs, and all else that has another
meaning when it is mirrored, remove "flip" from config.data.ops:
--config.data.ops='decode(3)|resize(32)|random_crop(32, pad=4)|scale(-1, 1)'.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = ConfigDict()
  config.seed = 0
  config.total_steps = 1600
  config.batch_size = 128
  config.task = dict(name="image_classification", label_smoothing=0.1)
  config.model = dict(name="resnet", depth=18, stem="cifar", width=16)
  config.learner = dict(name="supervised", ema=0.99)
  config.optimizer = dict(
    name="sgd",
    momentum=0.9,
    nesterov=True,
    lr=0.1,
    schedule="one_cycle",
    weight_decay=5e-4,
  )
  config.planned = dict(num_classes=10)
  config.data = dict(
    source="folder:data/cifar10",
    ops="decode(3)|resize(32)|random_crop(32, pad=4)|flip|scale(-1, 1)",
  )
  config.evals = dict(
    test=dict(
      name="classification",
      split="test",
      ops="decode(3)|resize(32)|scale(-1, 1)",
      every_steps=400,
    ),
  )
  config.checkpoint = dict(every_steps=400, keep=2)
  config.mesh = dict(data=-1)
  if common.is_smoke(arg):
    common.shrink(
      config,
      batch_size=8,
      model=dict(width=4),
      data=dict(source="fake:image?n=40&size=8&channels=3", ops=""),
    )
    config.evals.test.ops = ""
  return config
