"""Blood cells by a two-stage detector from scratch (BCCD, official split).

Faster R-CNN (arXiv:1506.01497) with a feature pyramid over a small backbone, on
pictures of 640 x 480 pixels at half their size. It trains on the splits train
and val together, 292 pictures, and test/map50 is pycocotools' average precision
at IoU 0.5 on the 72 pictures of the split test, in the pixels of the files.
Not yet measured; planned are 60 min on 2 CPU cores.

  python -m input_pipeline.fetch bccd
  python -m train.main --config=configs/vision/faster_rcnn_bccd.py

On two CPU cores set XLA_FLAGS=--xla_force_host_platform_device_count=2 first.
For a data set of your own in the layout of Pascal VOC add
--config.data.source=voc:DIR, and anchors of its objects' sizes in
config.model.sizes.
"""

from ml_collections import ConfigDict

from configs import common

_KEPT = 'keep("image", "boxes", "classes"'
_PADS = (
  'pad({0}, inkey="boxes", longer="first")'
  '|pad({0}, inkey="classes", longer="first")|scale(-1, 1)'
)


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = ConfigDict()
  config.seed = 0
  config.total_steps = 2500
  config.batch_size = 8
  config.task = dict(name="two_stage_detection")
  config.model = dict(
    name="faster_rcnn",
    width=16,
    features=64,
    hidden=128,
    sizes=((20, 36), (48, 64), (90, 128)),
    ratios=(0.7, 1.0, 1.4),
  )
  config.learner = dict(
    name="supervised", wrap=[dict(name="ema", decay=0.998, warmup=True)]
  )
  config.optimizer = dict(
    name="adamw",
    lr=1e-3,
    schedule="cosine",
    warmup_steps=100,
    weight_decay=0.02,
    clip_norm=10.0,
  )
  config.planned = dict(source="fake:boxes?size=320&classes=3")
  size = "resize((240, 320))"
  config.data = dict(
    source="voc:data/bccd",
    split="trainval",
    ops=f"decode(3)|{size}|mosaic(p=0.3)"
    "|random_resized_crop((240, 320), area=(0.4, 1.0), ratio=(1.2, 1.5))"
    "|flip|flip(vertical=True)|color_jitter(0.3, 0.3, 0.3)"
    f"|{_KEPT})|{_PADS.format(64)}",
  )
  config.evals = dict(
    test=dict(
      name="average_precision",
      split="test",
      ops=f'decode(3)|track_place|{size}|{_KEPT}, "place")|{_PADS.format(64)}',
      every_steps=500,
    ),
  )
  config.checkpoint = dict(every_steps=500, keep=2)
  config.mesh = dict(data=-1)
  if common.is_smoke(arg):
    common.shrink(
      config,
      batch_size=8,
      task=dict(proposals=8, candidates=16, anchors=16, regions=8),
      model=dict(width=2, features=4, hidden=8, sizes=((8,), (16,), (24,))),
      data=dict(
        source="fake:boxes?n=40&size=48",
        split="train",
        ops="decode(3)|resize((40, 48))|mosaic|flip"
        f"|color_jitter(0.1)|{_KEPT})|{_PADS.format(8)}",
      ),
    )
    config.evals.test.ops = (
      f'track_place|resize((40, 48))|{_KEPT}, "place")|{_PADS.format(8)}'
    )
  return config
