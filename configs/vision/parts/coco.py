"""What the detectors on COCO share: the pictures, their boxes and the AP."""

from ml_collections import ConfigDict

from configs import common

# Pictures of the split train2017.
PICTURES = 118_287
_FIELDS = ("boxes", "classes", "crowd")
_KEPT = 'keep("image", "boxes", "classes", "crowd"'


def _pads(size: int, **more: str) -> str:
  more = "".join(f', {key}="{value}"' for key, value in more.items())
  return "|".join(f'pad({size}, inkey="{name}"{more})' for name in _FIELDS)


def coco(*, size: int, train: str, test: str, every_steps: int) -> ConfigDict:
  """Detection in COCO's pictures, without a task, a model and an optimizer.

  Args:
    size: height and width of what the model reads.
    train: ops from the decoded picture to what is learned.
    test: ops from the decoded picture to what is measured.
    every_steps: steps between two evaluations on val2017.
  """
  config = ConfigDict()
  config.seed = 0
  config.planned = dict(source=f"fake:boxes?size={size}&classes=80&instances=1")
  config.data = dict(
    source="coco:data/coco",
    split="train",
    ops=f"decode(3)|{train}|{_KEPT})|{_pads(128, longer='first')}",
  )
  config.evals = dict(
    val=dict(
      name="average_precision",
      split="val",
      ops=f'decode(3)|track_place|{test}|{_KEPT}, "place")|{_pads(128)}',
      every_steps=every_steps,
    ),
  )
  config.checkpoint = dict(every_steps=2500, keep=2)
  config.mesh = dict(data=-1)
  return config


def shrink_coco(config: ConfigDict, train: str, model: dict, **task) -> None:
  """`common.shrink` for `coco`, fake pictures of 48 x 48 pixels.

  `train` has the ops; `model` and `task` replace settings of the two.
  """
  common.shrink(
    config,
    batch_size=8,
    task=task,
    model=model,
    data=dict(
      source="fake:boxes?n=40&size=48&instances=1",
      ops=f"{train}|to_float|{_KEPT})|{_pads(8, longer='first')}",
    ),
  )
  config.evals.val.ops = (
    f'track_place|letterbox(40)|to_float|{_KEPT}, "place")|{_pads(8)}'
  )
