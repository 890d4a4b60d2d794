"""Streets in masks: a small segmenter on CamVid (11 classes, 367 pictures).

The data are SegNet's copy of CamVid, with the folders train, trainannot, val,
valannot, test and testannot in data/camvid.

  python -m input_pipeline.fetch camvid
  python -m train.main --config=configs/vision/masks_camvid.py

Value 11 of the masks is "unlabelled" and is ignored, as is what rotations bring
in from outside. Look at the masks first: python -m input_pipeline.preview
--config=masks_camvid draws them in the folder preview. Streets have an upper
side, so pictures are mirrored from left to right only.

Published on the full pictures of 480 x 360, test mIoU over 11 classes without
pre-training: ENet 51.3, FC-DenseNet103 66.9. This network is smaller. Measured
with 300 of the 600 steps on 2 shared CPU cores, used as two devices, in 5 min
42 s: val/miou 18.9 %, val/pixel_accuracy 60.3 %, train/loss 0.76 (2.33 after
10 steps). That is far from trained: only sky, building and road are found yet.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = ConfigDict()
  config.seed = 0
  config.total_steps = 600
  config.batch_size = 8
  config.task = dict(name="segmentation")
  config.model = dict(name="fcn", width=24, blocks=3)
  config.learner = dict(name="supervised", ema=0.99)
  config.optimizer = dict(
    name="adamw",
    lr=2e-3,
    schedule="cosine",
    warmup_steps=50,
    weight_decay=1e-2,
    clip_norm=1.0,
  )
  config.planned = dict(source="fake:masks?size=240&classes=11")
  size = "resize((180, 240))"
  config.data = dict(
    source="masks:data/camvid?classes=11",
    ops=f"decode(3)|decode_mask|{size}|random_crop((160, 208))|flip|"
    "rotation(5)|scale(-1, 1)",
  )
  config.evals = dict(
    val=dict(
      name="segmentation",
      split="val",
      ops=f"decode(3)|decode_mask|{size}|scale(-1, 1)",
      every_steps=200,
    ),
  )
  config.checkpoint = dict(every_steps=200, keep=2)
  config.mesh = dict(data=-1)
  if common.is_smoke(arg):
    ops = "decode(3)|decode_mask|random_crop(16)|flip|rotation(5)|scale(-1, 1)"
    common.shrink(
      config,
      batch_size=8,
      model=dict(width=4, blocks=1),
      data=dict(source="fake:masks?n=40&size=24", ops=ops),
    )
    config.evals.val.ops = "decode_mask|scale(-1, 1)"
  return config
