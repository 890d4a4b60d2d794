"""ConvNeXt: ConvNextForImageClassification and models/vision/convnext.py.

See arXiv:2201.03545.
"""

from models.vision.convnext import VARIANTS
from train.conversions.parts.family import Family, Size, counted_labels, labels
from train.conversions.parts.layout import Row

_BLOCK = {
  "dwconv": ("depthwise", "OIHW->HWIO"),
  "layernorm": ("norm", None),
  "pwconv1": ("up", "OI->IO"),
  "pwconv2": ("down", "OI->IO"),
}


def _pair(theirs: str, ours: str, layout: str | None) -> list[Row]:
  """The rows of a weight and a bias; a norm's have no layout."""
  kernel = "scale" if layout is None else "kernel"
  return [
    Row(f"{theirs}.weight", f"{ours}/{kernel}", layout or ""),
    Row(f"{theirs}.bias", f"{ours}/bias"),
  ]


def _table(section) -> list[Row]:
  conv, start = "OIHW->HWIO", "convnext.embeddings"
  rows = _pair(f"{start}.patch_embeddings", "stem/conv", conv)
  rows += _pair(f"{start}.layernorm", "stem/norm", None)
  block = 0
  for stage, count in enumerate(section["depths"]):
    theirs = f"convnext.encoder.stages.{stage}"
    if stage:
      ours = f"downsamples/{stage - 1}"
      rows += _pair(f"{theirs}.downsampling_layer.0", f"{ours}/norm", None)
      rows += _pair(f"{theirs}.downsampling_layer.1", f"{ours}/conv", conv)
    for layer in range(count):
      name, ours = f"{theirs}.layers.{layer}", f"blocks/{block}"
      rows.append(Row(f"{name}.layer_scale_parameter", f"{ours}/scale"))
      for part, (own, layout) in _BLOCK.items():
        rows += _pair(f"{name}.{part}", f"{ours}/{own}", layout)
      block += 1
  rows += _pair("convnext.layernorm", "final_norm", None)
  return rows + _pair("classifier", "head", "OI->IO")


def _tidy(config, names):
  config = counted_labels(config, names)
  depths, dims = VARIANTS["T"]
  config.setdefault("depths", list(depths))
  config.setdefault("hidden_sizes", list(dims))
  return config


def _filled(section, shapes):
  del shapes
  depths, dims = VARIANTS[section["variant"]]
  filled = {
    "depths": list(section["depths"] or depths),
    "dims": list(section["dims"] or dims),
  }
  return {**section, **filled, "variant": "T"}


convnext = Family(
  model="convnext",
  task=lambda section, config: {"name": "image_classification"},
  sizes=(
    Size("num_labels", "num_classes", 2),
    Size("num_channels", "channels", 3),
    Size("depths", "depths", None, list),
    Size("hidden_sizes", "dims", None, list),
    Size("patch_size", "patch", 4),
    Size("layer_norm_eps", "norm_eps", 1e-12, float),
    Size("layer_scale_init_value", "layer_scale", 1e-6, float),
  ),
  ours={},
  fixed={
    "hidden_act": "gelu",
    "num_stages": lambda section: len(section["depths"]),
  },
  ignored=frozenset(
    {
      *("drop_path_rate", "image_size", "out_features", "out_indices"),
      *("stage_names", "tie_word_embeddings"),
    }
  ),
  table=_table,
  architecture=lambda section: "ConvNextForImageClassification",
  stem="ConvNext",
  prefix="convnext.",
  tidy=_tidy,
  filled=_filled,
  written=labels,
  optional=r"classifier\.(weight|bias)",
)
