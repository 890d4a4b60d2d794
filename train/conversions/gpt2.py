"""GPT-2 (Radford et al., 2019): GPT2LMHeadModel and models/language/decoder.py.

Its dense kernels are [in, out] like ours. Query, key and value share one
tensor.
"""

from train.conversions.parts.family import NO_HEAD, Family, Size
from train.conversions.parts.layout import Row

_ACTIVATIONS = {
  "gelu_new": "gelu",
  "gelu_pytorch_tanh": "gelu",
  "gelu_fast": "gelu",
  "gelu": "gelu_exact",
}
_NORMS = {"ln_1": "attention_norm", "ln_2": "feed_forward_norm"}
_DENSE = {
  "attn.c_proj": "attention/out",
  "mlp.c_fc": "feed_forward/up",
  "mlp.c_proj": "feed_forward/down",
}
_QKV = ("query", "key", "value")


def _table(section) -> list[Row]:
  L = section["layers"]
  block = "transformer.h.{}."
  rows = [
    Row("transformer.wte.weight", "token_embedding/embedding"),
    Row("transformer.wpe.weight", "position_embedding/embedding"),
    Row("transformer.ln_f.weight", "final_norm/scale"),
    Row("transformer.ln_f.bias", "final_norm/bias"),
  ]
  for theirs, ours in _NORMS.items():
    rows += [
      Row(f"{block}{theirs}.weight", f"blocks/{ours}/scale", layers=L),
      Row(f"{block}{theirs}.bias", f"blocks/{ours}/bias", layers=L),
    ]
  for theirs, ours in _DENSE.items():
    rows += [
      Row(f"{block}{theirs}.weight", f"blocks/{ours}/kernel", layers=L),
      Row(f"{block}{theirs}.bias", f"blocks/{ours}/bias", layers=L),
    ]
  for end, leaf, layout in (
    ("weight", "kernel", "I(SO)->SIO"),
    ("bias", "bias", "(SO)->SO"),
  ):
    ours = tuple(f"blocks/attention/{name}/{leaf}" for name in _QKV)
    rows.append(Row(f"{block}attn.c_attn.{end}", ours, layout, L))
  if not section["tie_embeddings"]:
    rows.append(Row("lm_head.weight", "unembedding/embedding"))
  return rows


def _tidy(config, names):
  """A GPT2Model has no output layer; its embeddings are then tied."""
  if _headless(config, names):
    config["tie_word_embeddings"] = True
  return config


def _headless(config, names) -> str:
  tied = config.get("tie_word_embeddings", True) is not False
  return "" if tied or "lm_head.weight" in names else NO_HEAD


def _copies(section) -> dict[str, str]:
  tied = section["tie_embeddings"]
  return {"lm_head.weight": "transformer.wte.weight"} if tied else {}


def _filled(section, shapes):
  heads, dim = section["heads"], section["dim"]
  return {
    **section,
    "kv_heads": None if section["kv_heads"] == heads else section["kv_heads"],
    "head_dim": None
    if section["head_dim"] == dim // heads
    else section["head_dim"],
  }


gpt2 = Family(
  model="decoder",
  task=lambda section, config: {"name": "language_modeling"},
  sizes=(
    Size("vocab_size", "vocab_size", 50257),
    Size("n_positions", "max_len", 1024),
    Size("n_embd", "dim", 768),
    Size("n_layer", "layers", 12),
    Size("n_head", "heads", 12),
    Size("n_inner", "hidden", None),
    Size("layer_norm_epsilon", "norm_eps", 1e-5, float),
    Size("activation_function", "activation", "gelu_new", str, _ACTIVATIONS),
    Size("tie_word_embeddings", "tie_embeddings", True, bool),
  ),
  ours={"positions": "learned", "norm": "layernorm", "bias": True},
  fixed={
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
  },
  ignored=frozenset(
    {
      *("n_ctx", "reorder_and_upcast_attn", "attn_pdrop", "embd_pdrop"),
      *("resid_pdrop", "summary_activation", "summary_first_dropout"),
      *("is_decoder", "is_causal"),
      *("summary_proj_to_labels", "summary_type", "summary_use_proj"),
    }
  ),
  table=_table,
  architecture=lambda section: "GPT2LMHeadModel",
  stem="GPT2",
  prefix="transformer.",
  tidy=_tidy,
  headless=_headless,
  filled=_filled,
  copies=_copies,
  # Causal masks, in files from before 2023.
  dropped=r"(transformer\.)?h\.\d+\.attn\.(masked_)?bias",
)
