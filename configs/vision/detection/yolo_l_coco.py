r"""YOLOv8's size l on COCO (Jocher et al. 2023; YOLOX, arXiv:2107.08430).

43,691,504 parameters, as published, for 80 classes in pictures of 640 x 640
pixels; 500 epochs of SGD with mosaic in batches of 64. Expected: about 52.9 %
AP on val2017 (YOLOv8's model zoo). Not measured here. Unlike there, mixup and
copy-paste are left out, mosaic lasts to the end, and batch norm has the epsilon
and the momentum of this code's other networks.

Meant for v5e:4x4, four pictures a chip; train.plan was not run to its end here.

  python -m train.main --config=yolo_l_coco

data/coco holds train2017, val2017 and annotations, unpacked from the archives
of cocodataset.org. Other pictures with boxes are the same config with another
--config.data.source, such as coco:DIR, voc:DIR or yolo:DIR.
"""

from ml_collections import ConfigDict

from configs import common
from configs.vision.parts.coco import PICTURES, coco, shrink_coco


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = coco(
    size=640,
    train="letterbox(640, fill=114)|mosaic"
    "|affine(translate=0.1, scale=(0.5, 1.5), fill=114)"
    "|flip|color_jitter(0.4, 0.0, 0.7, 0.015)|to_float",
    test="letterbox(640, fill=114)|to_float",
    every_steps=10_000,
  )
  config.batch_size = 64
  epoch = PICTURES // config.batch_size
  config.total_steps = 500 * epoch
  config.task = dict(name="one_stage_detection", overlap=0.7)
  config.model = dict(
    name="yolo",
    width=64,
    depth=3,
    most=512,
    head=256,
    sides_head=64,
    bins=16,
    norm="batch",
    dtype="bfloat16",
  )
  config.learner = dict(
    name="supervised", wrap=[dict(name="ema", decay=0.9999, warmup=True)]
  )
  config.optimizer = dict(
    name="sgd",
    momentum=0.937,
    nesterov=True,
    lr=0.01,
    schedule="linear",
    end_lr=1e-4,
    warmup_steps=3 * epoch,
    l2=5e-4,
    clip_norm=10.0,
  )
  if common.is_smoke(arg):
    shrink_coco(
      config,
      "letterbox(40)|mosaic|affine(scale=(0.5, 1.5))|flip",
      dict(width=2, depth=1, most=16, head=4, sides_head=2, bins=4),
    )
    config.optimizer.warmup_steps = 1
  return config
