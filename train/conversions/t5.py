"""T5 (arXiv:1910.10683): T5ForConditionalGeneration and encoder_decoder.py.

Version 1.0 has ReLU, a single embedding table and scaled logits. Version 1.1
has gated units, a separate output embedding and unscaled logits.
"""

from common.errors import UserError
from train.conversions.parts.family import Family, Size
from train.conversions.parts.layout import Row

_ACTIVATIONS = {
  "relu": "relu",
  "gated-gelu": "geglu",
  "gated-silu": "swiglu",
  "gelu": "gelu_exact",
  "gelu_new": "gelu",
}
_ATTENTION = {"q": "query", "k": "key", "v": "value", "o": "out"}
_HEAD = "lm_head.weight"


def _dense(theirs: str, ours: str, layers: int) -> Row:
  return Row(f"{theirs}.weight", f"{ours}/kernel", "OI->IO", layers)


def _stack(name: str, section, parts: dict[str, str]) -> list[Row]:
  """Returns the rows of the encoder or decoder, whose layers have `parts`."""
  L = section["layers"]
  if name == "decoder":
    L = section["decoder_layers"] or L
  block = f"{name}.block.{{}}.layer."
  bias = f"{name}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
  rows = [
    Row(f"{name}.final_layer_norm.weight", f"{name}_norm/scale"),
    Row(bias, f"{name}_bias/embedding"),
  ]
  for number, (theirs, ours) in enumerate(parts.items()):
    path = f"{block}{number}"
    norm = f"{name}/{ours}_norm/scale"
    rows.append(Row(f"{path}.layer_norm.weight", norm, layers=L))
    inner = _ATTENTION
    if ours == "feed_forward":
      gated = section["activation"] in ("geglu", "swiglu")
      ups = {"wi_0": "gate", "wi_1": "up"} if gated else {"wi": "up"}
      inner = {**ups, "wo": "down"}
    rows += [
      _dense(f"{path}.{theirs}.{a}", f"{name}/{ours}/{b}", L)
      for a, b in inner.items()
    ]
  return rows


def _table(section) -> list[Row]:
  attention, last = (
    {"SelfAttention": "attention"},
    {"DenseReluDense": "feed_forward"},
  )
  rows = [
    Row("shared.weight", "token_embedding/embedding"),
    *_stack("encoder", section, {**attention, **last}),
    *_stack(
      "decoder", section, {**attention, "EncDecAttention": "cross", **last}
    ),
  ]
  if not section["tie_embeddings"]:
    rows.append(Row(_HEAD, "unembedding/embedding"))
  return rows


def _copies(section) -> dict[str, str]:
  names = ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight"]
  names += [_HEAD] if section["tie_embeddings"] else []
  return dict.fromkeys(names, "shared.weight")


def _headless(config, names) -> str:
  """A T5EncoderModel has no decoder: ours then has one layer of zeros."""
  del config
  if any(name.startswith("decoder.") for name in names):
    return ""
  return "an encoder without a decoder: only its encoder can be used"


def _tidy(config, names):
  """Determines whether logits are scaled and whether embeddings are tied.

  Originally, tie_word_embeddings = false also meant unscaled logits. Newer
  files specify the scaling separately, in scale_decoder_outputs.
  """
  if _headless(config, names):
    config |= {"num_decoder_layers": 1, "is_encoder_decoder": True}
  tied = config.pop("tie_word_embeddings", True)
  scaled = config.pop("scale_decoder_outputs", tied)
  for value in (tied, scaled):
    if not isinstance(value, bool):
      raise UserError(f"tie_word_embeddings = {value!r}: must be true or false")
  config["_scaled"] = scaled and tied
  config["_tied"] = config["_scaled"] or _HEAD not in names
  return config


def _task(section, config) -> dict:
  """Returns config.task, with the end and start tokens of config.json."""
  del section
  start = config.get("decoder_start_token_id", config.get("pad_token_id", 0))
  end = config.get("eos_token_id", 1)
  ends = end if isinstance(end, list) and end else [end]
  for key, value in (
    ("decoder_start_token_id", start),
    *(("eos_token_id", each) for each in ends),
  ):
    if type(value) is not int or not 0 <= value < 2**31:
      raise UserError(f"{key} = {value!r}: is not a token id")
  return {"name": "sequence_to_sequence", "eos": end, "start": start}


def _filled(section, shapes):
  if section["scale_logits"] and not section["tie_embeddings"]:
    raise UserError(
      "config.model.scale_logits = True is supported only with tied embeddings"
    )
  heads, dim = section["heads"], section["dim"]
  return {
    **section,
    "head_dim": section["head_dim"] or dim // heads,
    "hidden": shapes["params/encoder/feed_forward/up/kernel"][-1],
    "decoder_layers": section["decoder_layers"] or section["layers"],
    "max_len": 512,  # only limits learned positions, which T5 does not have
  }


t5 = Family(
  model="encoder_decoder",
  task=_task,
  sizes=(
    Size("vocab_size", "vocab_size", 32128),
    Size("d_model", "dim", 512),
    Size("d_kv", "head_dim", 64),
    Size("d_ff", "hidden", 2048),
    Size("num_layers", "layers", 6),
    Size("num_decoder_layers", "decoder_layers", None),
    Size("num_heads", "heads", 8),
    Size("relative_attention_num_buckets", "buckets", 32),
    Size("relative_attention_max_distance", "farthest", 128),
    Size("layer_norm_epsilon", "norm_eps", 1e-6, float),
    Size("feed_forward_proj", "activation", "relu", str, _ACTIVATIONS),
    Size("_scaled", "scale_logits", True, bool),
    Size("_tied", "tie_embeddings", True, bool),
  ),
  ours={
    "positions": "relative",
    "norm": "rmsnorm",
    "norm_first": True,
    "bias": False,
    "scale_embeddings": False,
    "scale_scores": False,
  },
  fixed={"is_encoder_decoder": True, "is_decoder": False},
  ignored=frozenset(
    {
      *("classifier_dropout", "dense_act_fn", "dropout_rate", "is_gated_act"),
      "n_positions",
    }
  ),
  table=_table,
  architecture=lambda section: "T5ForConditionalGeneration",
  stem="T5",
  tidy=_tidy,
  filled=_filled,
  written=lambda section: {
    "tie_word_embeddings": section["scale_logits"],
    "scale_decoder_outputs": section["scale_logits"],
  },
  copies=_copies,
  headless=_headless,
  aliases={"shared.weight": "encoder.embed_tokens.weight"},
  optional=r"decoder\..*",
  # In files from before 2021; transformers does not read it either.
  dropped=r"decoder\.block\.0\.layer\.1\.EncDecAttention"
  r"\.relative_attention_bias\.weight",
)
