"""Streets in pixels by DeepLabV3 from scratch (CamVid, 11 classes).

DeepLabV3 (arXiv:1706.05587) on a narrow ResNet-18 with output stride 8. The
dilations of its pyramid suit 30 x 23 cells. It trains on the 367 pictures of
SegNet's split train, at 240 x 180 pixels, and test/miou is the mean IoU over 11
classes on the 233 pictures of the split test, of the mean of each picture and
its mirror image. Not yet measured; planned are 60 min on 2 CPU cores.

  python -m input_pipeline.fetch camvid
  python -m train.main --config=deeplab_camvid

On two CPU cores set XLA_FLAGS=--xla_force_host_platform_device_count=2 first.
To begin with a ResNet-18 in torchvision's layout, set config.model.width=64 and
add --config.init_from.path=FILE.safetensors
--config.init_from.map="[['^', 'backbone/']]".
"""

from ml_collections import ConfigDict

from configs import common
from configs.vision.parts.camvid import camvid, shrink_camvid


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = camvid(total_steps=2200, lr=1e-3)
  config.model = dict(
    name="deeplab",
    depth=18,
    width=32,
    rates=(3, 6, 9),
    features=64,
    dropout=0.1,
    auxiliary=True,
  )
  config.task.auxiliary = 0.4
  if common.is_smoke(arg):
    shrink_camvid(config, width=4, features=8)
  return config
