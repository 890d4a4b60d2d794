"""Blood cells by a one-stage detector from scratch (BCCD, official split).

The anchor-free detector of YOLOX and YOLOv8 (arXiv:2107.08430), made small for
a CPU, on pictures of 640 x 480 pixels at half their size. It trains on the
splits train and val together, 292 pictures, and test/map50 is pycocotools'
average precision at IoU 0.5 on the 72 pictures of the split test, in the pixels
of the files. Measured on 2 shared CPU cores, used as two devices: test/map50
86.81 %, test/map 57.44 %, in 22 min.

  python -m input_pipeline.fetch bccd
  python -m train.main --config=yolo_bccd

On two CPU cores set XLA_FLAGS=--xla_force_host_platform_device_count=2 first.

For a data set of your own in the layout of Pascal VOC add
--config.data.source=voc:DIR. While you compare settings, train on the split
train (--config.data.split=train) and measure on val
(--config.evals.test.split=val). Cells have no upper side, so flips both ways
fit them. The size n of YOLOv8 is model.bins=16.
"""

from ml_collections import ConfigDict

from configs import common
from configs.vision.parts.blood_cells import blood_cells, shrink_blood_cells


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = blood_cells(total_steps=1500, lr=2e-3)
  config.task = dict(name="one_stage_detection")
  config.model = dict(name="yolo", width=16, depth=1, head=32)
  if common.is_smoke(arg):
    shrink_blood_cells(config, dict(width=2, head=4))
  return config
