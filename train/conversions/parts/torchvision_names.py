"""ResNets in torchvision's layout: a .safetensors file without a config.json.

Their tensors have other names than transformers', and the sizes of the model
follow from their shapes.
"""

import re
from collections.abc import Mapping
from typing import Any

from common.errors import UserError
from train.conversions.parts.folder import CONFIG, Folder

# Part of torchvision's name -> part of transformers'.
_CONVOLUTION = {"conv": "convolution", "bn": "normalization"}
_SHORTCUT = {"0": "convolution", "1": "normalization"}
_START = {
  "conv1": "resnet.embedder.embedder.convolution",
  "bn1": "resnet.embedder.embedder.normalization",
  "fc": "classifier.1",
}
_LEAF = r"\.(weight|bias|running_mean|running_var|num_batches_tracked)"
_BLOCK = re.compile(
  r"layer([1-4])\.(\d+)\.(?:(conv|bn)([1-3])|downsample\.([01]))" + _LEAF
)


def spelled(name: str) -> str:
  """Returns transformers' name of a tensor of torchvision's; others as is."""
  found = _BLOCK.fullmatch(name)
  if found:
    stage, layer, kind, number, shortcut, leaf = found.groups()
    where = f"resnet.encoder.stages.{int(stage) - 1}.layers.{layer}"
    if shortcut:
      return f"{where}.shortcut.{_SHORTCUT[shortcut]}.{leaf}"
    return f"{where}.layer.{int(number) - 1}.{_CONVOLUTION[kind]}.{leaf}"
  start = re.fullmatch(f"(conv1|bn1|fc){_LEAF}", name)
  return f"{_START[start[1]]}.{start[2]}" if start else name


def config_of(tensors: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
  """Returns the config.json that describes a file in torchvision's layout.

  Args:
    tensors: {name: shape}.

  Returns:
    None if the names are not those of a ResNet of torchvision's.
  """
  stem, last = tensors.get("conv1.weight", ()), tensors.get("bn1.weight", ())
  names = [_BLOCK.fullmatch(name) for name in tensors]
  layers = {(int(n[1]), int(n[2])) for n in names if n}
  depths = [sum(stage == s for stage, _ in layers) for s in range(1, 5)]
  if len(stem) != 4 or len(last) != 1 or not all(depths):
    return None
  bottleneck = "layer1.0.conv3.weight" in tensors
  width = last[0]
  times = 4 if bottleneck else 1
  return {
    "model_type": "resnet",
    "num_channels": stem[1],
    "embedding_size": width,
    "hidden_sizes": [width * times * 2**stage for stage in range(4)],
    "depths": depths,
    "layer_type": "bottleneck" if bottleneck else "basic",
    "num_labels": tensors.get("fc.bias", (1000,))[0],
  }


def described(folder: Folder) -> Folder:
  """Returns the folder, with a config derived from its tensors if it has none.

  Raises:
    UserError: it has none, and the tensors are not in torchvision's layout.
  """
  if folder.config:
    return folder
  shapes = {name: tensor.shape for name, tensor in folder.tensors.items()}
  config = config_of(shapes)
  if config is None:
    raise UserError(
      f"{folder.path}: has no {CONFIG}, and the tensors are not those of a"
      " ResNet in torchvision's layout"
    )
  return folder._replace(config=config)
