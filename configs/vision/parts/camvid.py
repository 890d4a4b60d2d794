"""What the segmenters of CamVid share: street scenes and their classes."""

from ml_collections import ConfigDict

from configs import common

CLASSES = (
  "sky,building,pole,road,pavement,tree,sign,fence,car,pedestrian,bicyclist"
)
# The median over classes of their share of the pixels of the pictures that have
# them, over that share (arXiv:1411.4734, section 4.3.2), on the training
# pictures of 240 x 180 pixels.
MEDIAN_FREQUENCY = (
  *(0.28, 0.20, 4.78, 0.15, 1.00, 0.42, 3.85, 1.97, 0.79, 6.37, 8.86),
)


def camvid(*, total_steps: int, lr: float) -> ConfigDict:
  """Segmentation of pictures of 240 x 180 pixels, without a model.

  What is evaluated is the average of the parameters; test/miou is the figure.
  The weights of classes are the square roots of MEDIAN_FREQUENCY, with which
  rare classes are found without being seen everywhere.

  Args:
    total_steps: of training on the split train.
    lr: the largest rate of AdamW.
  """
  config = ConfigDict()
  config.seed = 0
  config.total_steps = total_steps
  config.batch_size = 8
  weights = tuple(round(each**0.5, 2) for each in MEDIAN_FREQUENCY)
  config.task = dict(name="segmentation", class_weights=weights, dice=0.5)
  config.learner = dict(
    name="supervised", wrap=[dict(name="ema", decay=0.998, warmup=True)]
  )
  config.optimizer = dict(
    name="adamw",
    lr=lr,
    schedule="cosine",
    warmup_steps=100,
    weight_decay=0.02,
    clip_norm=1.0,
  )
  config.planned = dict(source="fake:masks?size=240&classes=11")
  size = "resize((180, 240))"
  config.data = dict(
    source=f"masks:data/camvid?classes={CLASSES}",
    ops=f"decode(3)|decode_mask|{size}"
    "|random_resized_crop((160, 208), area=(0.3, 1.0), ratio=(1.2, 1.45))"
    "|flip|photometric_distortion|scale(-1, 1)",
  )
  every = total_steps // 4
  ops = f"decode(3)|decode_mask|{size}|scale(-1, 1)"
  config.evals = {
    split: dict(
      name="segmentation", split=split, ops=ops, every_steps=every, **more
    )
    for split, more in (("val", {}), ("test", dict(flips=True, pictures=4)))
  }
  config.checkpoint = dict(every_steps=every, keep=2)
  config.mesh = dict(data=-1)
  return config


def shrink_camvid(config: ConfigDict, **model) -> None:
  """`common.shrink` for `camvid`, fake pictures of 24 x 24 pixels.

  `model` replaces settings of the model.
  """
  common.shrink(
    config,
    batch_size=8,
    task=dict(class_weights=(1.0, 2.0, 0.5)),
    model=model,
    data=dict(
      source="fake:masks?n=40&size=24",
      ops="decode(3)|decode_mask|random_crop(16)|flip|photometric_distortion"
      "|scale(-1, 1)",
    ),
  )
  for evaluation in config.evals.values():
    evaluation.ops = "decode_mask|scale(-1, 1)"
  config.evals.val.split = "validation"
