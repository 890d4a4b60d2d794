"""Llama (arXiv:2302.13971, 2407.21783): LlamaForCausalLM and decoder.py.

Both rotate the coordinates (h, h + H/2) of a head together in rotary positions.
"""

from common.errors import UserError
from train.conversions.parts.family import NO_HEAD, Family, Size
from train.conversions.parts.layout import Row

_NORMS = {
  "input_layernorm": "attention_norm",
  "post_attention_layernorm": "feed_forward_norm",
}
_DENSE = {
  "self_attn.q_proj": "attention/query",
  "self_attn.k_proj": "attention/key",
  "self_attn.v_proj": "attention/value",
  "self_attn.o_proj": "attention/out",
  "mlp.gate_proj": "feed_forward/gate",
  "mlp.up_proj": "feed_forward/up",
  "mlp.down_proj": "feed_forward/down",
}


def _table(section) -> list[Row]:
  L = section["layers"]
  block = "model.layers.{}."
  rows = [
    Row("model.embed_tokens.weight", "token_embedding/embedding"),
    Row("model.norm.weight", "final_norm/scale"),
  ]
  for theirs, ours in _NORMS.items():
    path = f"blocks/{ours}/scale"
    rows.append(Row(f"{block}{theirs}.weight", path, layers=L))
  for theirs, ours in _DENSE.items():
    path = f"blocks/{ours}/kernel"
    rows.append(Row(f"{block}{theirs}.weight", path, "OI->IO", L))
  if not section["tie_embeddings"]:
    rows.append(Row("lm_head.weight", "unembedding/embedding"))
  return rows


def _copies(section) -> dict[str, str]:
  tied = section["tie_embeddings"]
  return {"lm_head.weight": "model.embed_tokens.weight"} if tied else {}


def _headless(config, names) -> str:
  tied = config.get("tie_word_embeddings", False) is not False
  return "" if tied or "lm_head.weight" in names else NO_HEAD


def _tidy(config, names):
  """Normalizes rope_theta and rope_scaling; a LlamaModel has no lm_head."""
  if _headless(config, names):
    config["tie_word_embeddings"] = True
  scaling = config.pop("rope_parameters", None) or config.get("rope_scaling")
  config.pop("rope_scaling", None)
  if scaling is None:
    return config
  if not isinstance(scaling, dict):
    raise UserError(f"rope_scaling = {scaling!r}: is not a JSON object")
  scaling = dict(scaling)
  theta = scaling.pop("rope_theta", None)
  kind = scaling.pop("type", None)  # the key's name before 2024
  scaling.setdefault("rope_type", kind or "default")
  if theta is not None:
    config["rope_theta"] = theta
  if scaling != {"rope_type": "default"}:
    config["rope_scaling"] = scaling
  return config


def _filled(section, shapes):
  heads, dim = section["heads"], section["dim"]
  scaling = section["rope_scaling"]
  plain = scaling and scaling["rope_type"] == "default"
  return {
    **section,
    "kv_heads": section["kv_heads"] or heads,
    "head_dim": section["head_dim"] or dim // heads,
    "hidden": shapes["params/blocks/feed_forward/up/kernel"][-1],
    "rope_scaling": None if plain else scaling,
  }


llama = Family(
  model="decoder",
  task=lambda section, config: {"name": "language_modeling"},
  sizes=(
    Size("vocab_size", "vocab_size", 32000),
    Size("hidden_size", "dim", 4096),
    Size("intermediate_size", "hidden", 11008),
    Size("num_hidden_layers", "layers", 32),
    Size("num_attention_heads", "heads", 32),
    Size("num_key_value_heads", "kv_heads", None),
    Size("head_dim", "head_dim", None),
    Size("max_position_embeddings", "max_len", 2048),
    Size("rms_norm_eps", "norm_eps", 1e-6, float),
    Size("rope_theta", "rope_theta", 10000.0, float),
    Size("rope_scaling", "rope_scaling", None, dict),
    Size("tie_word_embeddings", "tie_embeddings", False, bool),
  ),
  ours={
    "positions": "rotary",
    "norm": "rmsnorm",
    "activation": "swiglu",
    "bias": False,
  },
  fixed={"hidden_act": "silu", "attention_bias": False, "mlp_bias": False},
  ignored=frozenset(
    {
      *("attention_dropout", "pretraining_tp", "is_decoder", "is_causal"),
      *("add_cross_attention", "is_encoder_decoder"),
    }
  ),
  table=_table,
  architecture=lambda section: "LlamaForCausalLM",
  stem="Llama",
  prefix="model.",
  tidy=_tidy,
  headless=_headless,
  filled=_filled,
  copies=_copies,
  # In files from before 2024; it follows from rope_theta.
  dropped=r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq",
)
