"""Streets in pixels by a fully convolutional network (CamVid, 11 classes).

An encoder with residual blocks and a decoder that adds finer features
(arXiv:1411.4038, with the sums of arXiv:1707.03718), without pre-training. It
trains on the 367 pictures of SegNet's split train, at 240 x 180 pixels, and
test/miou is the mean IoU over 11 classes on the 233 pictures of the split test,
of the mean of each picture and its mirror image. Measured on 2 shared CPU
cores, used as two devices, in 35 min: test/miou 45.29 %, val/miou 54.79 %.

  python -m input_pipeline.fetch camvid
  python -m train.main --config=fcn_camvid

On two CPU cores set XLA_FLAGS=--xla_force_host_platform_device_count=2 first.
Look at the masks first: python -m input_pipeline.preview --config=fcn_camvid
draws them in the folder preview. Value 11 of the masks is "unlabelled" and is
ignored, as is what rotations would bring in from outside. Streets have an upper
side, so pictures are mirrored from left to right only. For masks of your own
add --config.data.source='masks:DIR?classes=N', and weights of its classes in
config.task.class_weights, or none: --config.task.class_weights='()'.

Published on the full pictures of 480 x 360, test mIoU over 11 classes without
pre-training: ENet 51.3, FC-DenseNet103 66.9.
"""

from ml_collections import ConfigDict

from configs import common
from configs.vision.parts.camvid import camvid, shrink_camvid


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = camvid(total_steps=4000, lr=2e-3)
  config.model = dict(name="fcn", width=32, blocks=4)
  if common.is_smoke(arg):
    shrink_camvid(config, width=4, blocks=1)
  return config
