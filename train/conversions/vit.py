"""The vision transformer: ViTForImageClassification and models/vision/vit.py.

See arXiv:2010.11929. Hugging Face embeds patches with a convolution, our model
with a dense layer.
"""

from collections.abc import Mapping

from models.vision.vit import sizes
from train.conversions.parts.family import Family, Size, counted_labels, labels
from train.conversions.parts.layout import Row

ACTIVATIONS = {
  "gelu": "gelu_exact",
  "gelu_new": "gelu",
  "gelu_pytorch_tanh": "gelu",
}
NORMS = {
  "layernorm_before": "attention_norm",
  "layernorm_after": "feed_forward_norm",
}
ATTENTION = {
  "attention.attention.query": "attention/query",
  "attention.attention.key": "attention/key",
  "attention.attention.value": "attention/value",
  "attention.output.dense": "attention/out",
}
DENSE = {
  **ATTENTION,
  "intermediate.dense": "feed_forward/up",
  "output.dense": "feed_forward/down",
}


def table_of(
  section,
  prefix: str,
  norms: Mapping[str, str] = NORMS,
  dense: Mapping[str, str] = DENSE,
) -> list[Row]:
  """The rows of a model whose tensors have a prefix, but for those of heads.

  Args:
    section: config.model, complete.
    prefix: of the names of the tensors.
    norms: {the name of a norm in a block: ours}.
    dense: {the name of a dense layer in a block: ours}.
  """
  L, patch = section["layers"], section["patch"]
  start, block = f"{prefix}.embeddings.", f"{prefix}.encoder.layer.{{}}."
  convolution = f"{start}patch_embeddings.projection"
  rows = [
    Row(f"{start}cls_token", "cls"),
    Row(f"{start}position_embeddings", "position_embedding"),
    Row(
      f"{convolution}.weight",
      "patch_embedding/kernel",
      "OIHW->(HWI)O",
      known=(("H", patch), ("W", patch)),
    ),
    Row(f"{convolution}.bias", "patch_embedding/bias"),
    Row(f"{prefix}.layernorm.weight", "final_norm/scale"),
    Row(f"{prefix}.layernorm.bias", "final_norm/bias"),
  ]
  for theirs, ours in norms.items():
    rows += [
      Row(f"{block}{theirs}.weight", f"blocks/{ours}/scale", layers=L),
      Row(f"{block}{theirs}.bias", f"blocks/{ours}/bias", layers=L),
    ]
  for theirs, ours in dense.items():
    path = f"blocks/{ours}"
    rows += [
      Row(f"{block}{theirs}.weight", f"{path}/kernel", "OI->IO", L),
      Row(f"{block}{theirs}.bias", f"{path}/bias", layers=L),
    ]
  return rows


def head(theirs: str, ours: str = "head") -> list[Row]:
  """The rows of a last layer."""
  return [
    Row(f"{theirs}.weight", f"{ours}/kernel", "OI->IO"),
    Row(f"{theirs}.bias", f"{ours}/bias"),
  ]


def _table(section) -> list[Row]:
  return [*table_of(section, "vit"), *head("classifier")]


def filled(section, shapes):
  """The section with the sizes that its variant, or the arrays, have."""
  names = ("layers", "dim", "heads", "patch")
  variant = dict(zip(names, sizes(section["variant"]), strict=True))
  given = {name: section[name] or variant[name] for name in names}
  hidden = shapes["params/blocks/feed_forward/up/kernel"][-1]
  return {**section, **given, "hidden": hidden, "variant": "S/16"}


vit = Family(
  model="vit",
  task=lambda section, config: {"name": "image_classification"},
  sizes=(
    Size("num_labels", "num_classes", 2),
    Size("num_channels", "channels", 3),
    Size("image_size", "image_size", 224),
    Size("patch_size", "patch", 16),
    Size("num_hidden_layers", "layers", 12),
    Size("hidden_size", "dim", 768),
    Size("num_attention_heads", "heads", 12),
    Size("intermediate_size", "hidden", 3072),
    Size("layer_norm_eps", "norm_eps", 1e-12, float),
    Size("hidden_act", "activation", "gelu", str, ACTIVATIONS),
  ),
  ours={"pool": "cls"},
  fixed={"qkv_bias": True},
  ignored=frozenset(
    {
      *("attention_probs_dropout_prob", "hidden_dropout_prob"),
      *("encoder_stride", "pooler_act", "pooler_output_size"),
      "tie_word_embeddings",
    }
  ),
  table=_table,
  architecture=lambda section: "ViTForImageClassification",
  stem="ViT",
  prefix="vit.",
  tidy=counted_labels,
  filled=filled,
  written=labels,
  # A ViTModel has a pooler and no classifier.
  dropped=r"vit\.(pooler\.dense\.(weight|bias)|embeddings\.mask_token)",
  optional=r"classifier\.(weight|bias)",
)
