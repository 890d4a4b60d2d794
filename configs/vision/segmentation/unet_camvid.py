"""Streets in pixels by a U-Net (CamVid, 11 classes).

A U-Net (arXiv:1505.04597) with batch norm, made narrow. It trains on the 367
pictures of SegNet's split train, at 240 x 180 pixels, and test/miou is the mean
IoU over 11 classes on the 233 pictures of the split test, of the mean of each
picture and its mirror image. Not yet measured; planned are 60 min on 2 CPU
cores.

  python -m input_pipeline.fetch camvid
  python -m train.main --config=unet_camvid

On two CPU cores set XLA_FLAGS=--xla_force_host_platform_device_count=2 first.
"""

from ml_collections import ConfigDict

from configs import common
from configs.vision.parts.camvid import camvid, shrink_camvid


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = camvid(total_steps=2000, lr=2e-3)
  config.model = dict(name="unet_segmentation", width=16, dropout=0.2)
  if common.is_smoke(arg):
    shrink_camvid(config, width=4, levels=2)
  return config
