"""Blood cells as a set: DETR from scratch, made small (BCCD, official split).

DETR (arXiv:2005.12872) needs long training: on COCO it took 500 epochs from a
pre-trained backbone. This one starts from nothing, on pictures of 640 x 480
pixels at half their size. It trains on the splits train and val together, 292
pictures, and test/map50 is pycocotools' average precision at IoU 0.5 on the 72
pictures of the split test, in the pixels of the files. Not yet measured.

  python -m input_pipeline.fetch bccd
  python -m train.main --config=detr_bccd

On two CPU cores set XLA_FLAGS=--xla_force_host_platform_device_count=2 first.
For a data set of your own in the layout of Pascal VOC add
--config.data.source=voc:DIR.
"""

from ml_collections import ConfigDict

from configs import common
from configs.vision.parts.blood_cells import blood_cells, shrink_blood_cells


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = blood_cells(total_steps=3000, lr=5e-4)
  config.task = dict(name="set_detection")
  config.model = dict(
    name="detr", width=16, queries=80, layers=3, dim=128, heads=8, hidden=256
  )
  if common.is_smoke(arg):
    model = dict(width=2, queries=12, layers=2, dim=8, heads=2, hidden=8)
    shrink_blood_cells(config, model)
  return config
