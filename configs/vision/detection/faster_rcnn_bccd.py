"""Blood cells by a two-stage detector from scratch (BCCD, official split).

Faster R-CNN (arXiv:1506.01497) with a feature pyramid over a small backbone, on
pictures of 640 x 480 pixels at half their size. It trains on the splits train
and val together, 292 pictures, and test/map50 is pycocotools' average precision
at IoU 0.5 on the 72 pictures of the split test, in the pixels of the files.
Measured on 2 shared CPU cores, used as two devices: test/map50 84.69 %,
test/map 52.53 %, in 13 min.

  python -m input_pipeline.fetch bccd
  python -m train.main --config=faster_rcnn_bccd

On two CPU cores set XLA_FLAGS=--xla_force_host_platform_device_count=2 first.
For a data set of your own in the layout of Pascal VOC add
--config.data.source=voc:DIR, and anchors of its objects' sizes in
config.model.sizes.
"""

from ml_collections import ConfigDict

from configs import common
from configs.vision.parts.blood_cells import blood_cells, shrink_blood_cells


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = blood_cells(total_steps=1000, lr=1e-3)
  config.task = dict(name="two_stage_detection")
  config.model = dict(
    name="faster_rcnn",
    width=16,
    features=64,
    hidden=128,
    sizes=((20, 36), (48, 64), (90, 128)),
    ratios=(0.7, 1.0, 1.4),
  )
  if common.is_smoke(arg):
    shrink_blood_cells(
      config,
      dict(width=2, features=4, hidden=8, sizes=((8,), (16,), (24,))),
      proposals=8,
      candidates=16,
      anchors=16,
      regions=8,
    )
  return config
