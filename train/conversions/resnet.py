"""ResNet v1.5: ResNetForImageClassification and models/vision/resnet.py.

See arXiv:1512.03385. The running averages of batch norm are our model_state.
"""

from models.vision.resnet import DEPTHS
from train.conversions.parts.family import Family, Size, counted_labels, labels
from train.conversions.parts.layout import Row
from train.conversions.parts.torchvision_names import spelled

# (depths, layer_type) -> depth
_DEPTHS = {
  (depths, "bottleneck" if bottleneck else "basic"): depth
  for depth, (depths, bottleneck) in DEPTHS.items()
}
_LEAVES = (
  ("convolution.weight", "conv/kernel", "OIHW->HWIO", False),
  ("normalization.weight", "norm/scale", "", False),
  ("normalization.bias", "norm/bias", "", False),
  ("normalization.running_mean", "norm/mean", "", True),
  ("normalization.running_var", "norm/var", "", True),
)


def _places(section) -> dict[str, str]:
  """Returns {prefix of a convolution and its norm: our path}."""
  counts, bottleneck = DEPTHS[section["depth"]]
  places, block = {"resnet.embedder.embedder": "stem"}, 0
  for stage, count in enumerate(counts):
    for index in range(count):
      theirs = f"resnet.encoder.stages.{stage}.layers.{index}"
      for conv in range(3 if bottleneck else 2):
        places[f"{theirs}.layer.{conv}"] = f"blocks/{block}/convs/{conv}"
      if index == 0 and (stage or bottleneck):
        places[f"{theirs}.shortcut"] = f"blocks/{block}/shortcut"
      block += 1
  return places


def _table(section) -> list[Row]:
  rows = [
    Row(f"{theirs}.{tensor}", f"{ours}/{leaf}", layout, state=state)
    for theirs, ours in _places(section).items()
    for tensor, leaf, layout, state in _LEAVES
  ]
  return [
    *rows,
    Row("classifier.1.weight", "head/kernel", "OI->IO"),
    Row("classifier.1.bias", "head/bias"),
  ]


def _widths(section) -> list[int]:
  times = 4 if DEPTHS[section["depth"]][1] else 1
  return [section["width"] * times * 2**stage for stage in range(4)]


def _tidy(config, names):
  config = counted_labels(config, names)
  config.setdefault("hidden_sizes", [256, 512, 1024, 2048])
  return config


resnet = Family(
  model="resnet",
  task=lambda section, config: {"name": "image_classification"},
  sizes=(
    Size("num_labels", "num_classes", 2),
    Size("num_channels", "channels", 3),
    Size("embedding_size", "width", 64),
    Size(
      ("depths", "layer_type"),
      "depth",
      ([3, 4, 6, 3], "bottleneck"),
      choices=_DEPTHS,
    ),
  ),
  ours={"stem": "imagenet"},
  fixed={
    "hidden_sizes": _widths,
    "hidden_act": "relu",
    "downsample_in_first_stage": False,
    "downsample_in_bottleneck": False,
  },
  ignored=frozenset(
    {"out_features", "out_indices", "stage_names", "tie_word_embeddings"}
  ),
  table=_table,
  architecture=lambda section: "ResNetForImageClassification",
  stem="ResNet",
  prefix="resnet.",
  spelling=spelled,
  tidy=_tidy,
  written=labels,
  optional=r"classifier\.1\.(weight|bias)",
  counters=lambda section: [
    f"{place}.normalization.num_batches_tracked" for place in _places(section)
  ],
)
