"""What the detectors on BCCD share: the pictures of cells and their boxes."""

from ml_collections import ConfigDict

from configs import common

_KEPT = 'keep("image", "boxes", "classes"'
_PADS = (
  'pad({0}, inkey="boxes", longer="first")'
  '|pad({0}, inkey="classes", longer="first")|scale(-1, 1)'
)


def blood_cells(*, total_steps: int, lr: float) -> ConfigDict:
  """Detection in pictures of 320 x 240 pixels, without a task and a model.

  What is evaluated is the average of the parameters, on the split test.

  Args:
    total_steps: of training on the splits train and val together.
    lr: the largest rate of AdamW.
  """
  config = ConfigDict()
  config.seed = 0
  config.total_steps = total_steps
  config.batch_size = 8
  config.learner = dict(
    name="supervised", wrap=[dict(name="ema", decay=0.998, warmup=True)]
  )
  config.optimizer = dict(
    name="adamw",
    lr=lr,
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
  return config


def shrink_blood_cells(config: ConfigDict, model: dict, **task) -> None:
  """`common.shrink` for `blood_cells`, fake pictures of 48 x 40 pixels.

  `model` and `task` replace settings of the two.
  """
  common.shrink(
    config,
    batch_size=8,
    task=task,
    model=model,
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
