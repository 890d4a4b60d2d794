"""DINOv2: Dinov2ForImageClassification and models/vision/vit.py.

See arXiv:2304.07193. It is the vision transformer of vit.py with learned
factors of each addition to the residual stream, in its largest size with a
gated feed-forward layer, and with a head that reads the class token and the
mean over patches. A Dinov2Model, without a head, is what is published.
"""

from common.errors import UserError
from train.conversions import vit
from train.conversions.parts.family import (
  Size,
  counted_labels,
  labels,
  short,
)
from train.conversions.parts.layout import Row

_NORMS = {"norm1": "attention_norm", "norm2": "feed_forward_norm"}
_MLP = {"mlp.fc1": "feed_forward/up", "mlp.fc2": "feed_forward/down"}
_SCALES = {
  "layer_scale1": "attention_scale",
  "layer_scale2": "feed_forward_scale",
}
_GATED = ("feed_forward/gate", "feed_forward/up")
_MOST_RATIO = 16  # of mlp_ratio


def body(section, prefix: str) -> list[Row]:
  """The rows of a model whose tensors have a prefix, but for its head."""
  layers, gated = section["layers"], section["activation"] == "swiglu"
  block = f"{prefix}.encoder.layer.{{}}."
  dense = vit.ATTENTION | ({} if gated else _MLP)
  rows = vit.table_of(section, prefix, _NORMS, dense)
  for theirs, ours in _SCALES.items():
    rows.append(Row(f"{block}{theirs}.lambda1", f"blocks/{ours}", "", layers))
  if not gated:
    return rows
  kernels, biases = (
    tuple(f"blocks/{path}/{kind}" for path in _GATED)
    for kind in ("kernel", "bias")
  )
  name, out = f"{block}mlp.weights_in", f"{block}mlp.weights_out"
  down = "blocks/feed_forward/down"
  return rows + [
    Row(f"{name}.weight", kernels, "(SO)I->SIO", layers),
    Row(f"{name}.bias", biases, "(SO)->SO", layers),
    Row(f"{out}.weight", f"{down}/kernel", "OI->IO", layers),
    Row(f"{out}.bias", f"{down}/bias", "", layers),
  ]


def hidden_of(dim: int, ratio: int, gated: bool) -> int:
  """The hidden size of a feed-forward layer.

  A gated one has two thirds of it, rounded up to a multiple of 8.
  """
  hidden = int(dim * ratio)
  return (int(hidden * 2 / 3) + 7) // 8 * 8 if gated else hidden


def _tidy(config, names):
  config = counted_labels(config, names)
  dim, ratio = config.get("hidden_size", 768), config.get("mlp_ratio", 4)
  for key, value in (("hidden_size", dim), ("mlp_ratio", ratio)):
    if type(value) not in (int, float) or not 0 < value < 2**31:
      raise UserError(f"{key} = {short(value)}: is not a valid value")
  gated = config.get("use_swiglu_ffn") is True
  return {**config, "_hidden": hidden_of(dim, ratio, gated)}


def _written(section):
  dim, gated = section["dim"], section["activation"] == "swiglu"
  if section["layer_scale"] is None:
    raise UserError("config.model.layer_scale is None, not a number")
  for ratio in range(1, _MOST_RATIO + 1):
    if hidden_of(dim, ratio, gated) == section["hidden"]:
      return {**labels(section), "mlp_ratio": ratio, "use_mask_token": False}
  raise UserError(
    f"config.model.hidden is {section['hidden']}, which no integer mlp_ratio"
    " gives"
  )


def _table(section) -> list[Row]:
  return [*body(section, "dinov2"), *vit.head("classifier")]


_REPLACED = (
  *("intermediate_size", "hidden_act", "layer_norm_eps", "patch_size"),
)
_ACTIVATIONS = {
  ("gelu", False): "gelu_exact",
  **{(name, True): "swiglu" for name in ("gelu", "silu")},
  **{(name, False): "gelu" for name in ("gelu_new", "gelu_pytorch_tanh")},
}

dinov2 = vit.vit._replace(
  sizes=(
    *(size for size in vit.vit.sizes if size.theirs not in _REPLACED),
    Size("patch_size", "patch", 14),
    Size("_hidden", "hidden", None),
    Size(
      ("hidden_act", "use_swiglu_ffn"),
      "activation",
      ("gelu", False),
      str,
      _ACTIVATIONS,
    ),
    Size("layer_norm_eps", "norm_eps", 1e-6, float),
    Size("layerscale_value", "layer_scale", 1.0, float),
  ),
  ours={"pool": "cls_gap"},
  ignored=vit.vit.ignored
  | {
    *("apply_layernorm", "drop_path_rate", "mlp_ratio", "out_features"),
    *("out_indices", "reshape_hidden_states", "stage_names", "use_mask_token"),
  },
  table=_table,
  architecture=lambda section: "Dinov2ForImageClassification",
  stem="Dinov2",
  prefix="dinov2.",
  tidy=_tidy,
  written=_written,
  dropped=r"dinov2\.embeddings\.mask_token",
)
