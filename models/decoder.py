"""The decoder-only transformer: GPT-2, Llama and what lies between.

The shape legend stands in models/layers.py.
"""

import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P

from models import Model, pure, transformer
from models.layers import (
  NORMS,
  Embedding,
  Norm,
  choose,
  dropout_layer,
  float_dtype,
)

POSITIONS = ("learned", "rotary")


class Decoder(nnx.Module):
  """Tokens to logits; `decoder` documents the arguments."""

  def __init__(
    self,
    *,
    vocab_size,
    count,
    dim,
    positions,
    norm,
    tie_embeddings,
    dropout,
    max_len,
    scan,
    remat,
    dtype,
    param_dtype,
    rngs,
    **block,
  ):
    self.max_len, self.scan, self.remat = max_len, scan, remat
    common = {"dtype": dtype, "param_dtype": param_dtype}
    self.token_embedding = Embedding(vocab_size, dim, rngs=rngs, **common)
    self.position_embedding = nnx.data(
      Embedding(max_len, dim, rngs=rngs, **common)
      if positions == "learned"
      else None
    )
    self.dropout = nnx.data(dropout_layer(dropout, rngs))
    self.blocks = transformer.stacked_blocks(
      count, rngs, dim, norm=norm, dropout=dropout, **block, **common
    )
    self.final_norm = Norm(dim, param_dtype=param_dtype, **norm)
    self.unembedding = nnx.data(
      None
      if tie_embeddings
      else Embedding(vocab_size, dim, rngs=rngs, **common)
    )

  def __call__(self, tokens_BT, cache=None):
    """logits_BTV float32; with a cache, (logits_BTV, the cache grown by T)."""
    outputs = self.features(tokens_BT, cache)
    x_BTD, cache = (outputs, None) if cache is None else outputs
    logits_BTV = (self.unembedding or self.token_embedding).attend(x_BTD)
    return logits_BTV if cache is None else (logits_BTV, cache)

  def features(self, tokens_BT, cache=None):
    """x_BTD after the last norm; with a cache, (x_BTD, the cache grown)."""
    T = tokens_BT.shape[1]
    length = 0 if cache is None else cache["length"]
    x_BTD = self.token_embedding(tokens_BT)
    if self.position_embedding is not None:
      if self.max_len < T:
        raise ValueError(
          f"{T} tokens, but the model's max_len = {self.max_len}"
        )
      x_BTD += self.position_embedding(length + jnp.arange(T))[None]
    if self.dropout is not None:
      x_BTD = self.dropout(x_BTD)
    layer_cache = cache and {name: cache[name] for name in ("key", "value")}
    x_BTD, layer_cache = transformer.run_blocks(
      self.blocks,
      x_BTD,
      layer_cache,
      length,
      scan=self.scan,
      remat=self.remat,
    )
    x_BTD = self.final_norm(x_BTD)
    return (
      x_BTD if cache is None else (x_BTD, dict(layer_cache, length=length + T))
    )


def decoder(
  *,
  vocab_size: int,
  layers: int = 4,
  dim: int = 128,
  heads: int = 4,
  kv_heads: int | None = None,
  head_dim: int | None = None,
  hidden: int | None = None,
  positions: str = "learned",
  rope_theta: float = 10000.0,
  norm: str = "layernorm",
  norm_eps: float = 1e-5,
  activation: str = "gelu",
  bias: bool = True,
  tie_embeddings: bool = True,
  dropout: float = 0.0,
  max_len: int = 1024,
  scan: bool = True,
  remat: str = "none",
  dtype: str = "float32",
  param_dtype: str = "float32",
) -> Model:
  """A causal language model, tokens_BT -> logits_BTV in float32.

  The defaults are GPT-2's architecture (Radford et al., 2019) and its
  initialization: normal(0.02), projections into the residual stream
  normal(0.02 / sqrt(2 layers)). Llama's (arXiv:2302.13971) is positions
  "rotary", norm "rmsnorm", activation "swiglu", no bias, untied embeddings.
  `apply` takes a cache from `init_cache` as `cache=`, appends its tokens
  (one or many) at cache["length"], and returns (logits, new cache). Its method
  "features" returns the normed x_BTD before the unembedding instead of logits.

  Args:
    vocab_size: V.
    layers: number of blocks.
    dim: D, the residual stream.
    heads: N query heads.
    kv_heads: K key-value heads, a divisor of N; N if None.
    head_dim: H; D / N if None.
    hidden: F; if None 4 D, or for swiglu, which has a third matrix, 8/3 D
      rounded up to a multiple of 8.
    positions: "learned" or "rotary".
    rope_theta: base of the rotary frequencies.
    norm: "layernorm" or "rmsnorm".
    norm_eps: added to the variance.
    activation: "gelu" (tanh approximation), "gelu_exact" or "swiglu".
    bias: of all projections and layer norms.
    tie_embeddings: unembed with the token embedding.
    dropout: rate, of embeddings and of what enters the residual stream.
    max_len: the longest sequence; longer texts are sampled from a window.
    scan: compile one layer and loop over it; else compile each on its own,
      with the same parameters.
    remat: what is computed again in the backward pass: "none", "full", or
      "dots" (all but matrix products).
    dtype: of the computation.
    param_dtype: of the parameters.

  Raises:
    ValueError: for an unknown choice, or sizes that do not divide.
  """
  kv_heads = kv_heads or heads
  if heads % kv_heads:
    raise ValueError(f"heads = {heads} is no multiple of kv_heads = {kv_heads}")
  if head_dim is None and dim % heads:
    raise ValueError(f"dim = {dim} is no multiple of heads = {heads}")
  head_dim = head_dim or dim // heads
  if choose("positions", positions, POSITIONS) == "rotary" and head_dim % 2:
    raise ValueError(
      f"head_dim = {head_dim} is odd: rotary positions need even"
    )
  if hidden is None:
    hidden = -(-dim // 3) * 8 if activation == "swiglu" else 4 * dim
  out_init = nnx.initializers.normal(0.02 / (2 * layers) ** 0.5)
  compute = float_dtype("dtype", dtype)
  config = {
    "vocab_size": vocab_size,
    "count": layers,
    "dim": dim,
    "positions": positions,
    "norm": {
      "kind": choose("norm", norm, NORMS),
      "eps": norm_eps,
      "bias": bias,
    },
    "tie_embeddings": tie_embeddings,
    "dropout": dropout,
    "max_len": max_len,
    "scan": scan,
    "remat": choose("remat", remat, transformer.REMAT),
    "attention": {
      "heads": heads,
      "kv_heads": kv_heads,
      "head_dim": head_dim,
      "causal": True,
      "rope_theta": rope_theta if positions == "rotary" else None,
      "out_init": out_init,
    },
    "feed_forward": {
      "hidden": hidden,
      "activation": choose("activation", activation, transformer.ACTIVATIONS),
      "out_init": out_init,
    },
    "bias": bias,
    "dtype": compute,
    "param_dtype": float_dtype("param_dtype", param_dtype),
  }

  def init_cache(batch_size, length, dtype=compute):
    if positions == "learned" and length > max_len:
      raise ValueError(f"{length} tokens, but the model's max_len = {max_len}")
    shape = (layers, batch_size, length, kv_heads, head_dim)
    return {
      "key": jnp.zeros(shape, dtype),
      "value": jnp.zeros(shape, dtype),
      "length": jnp.zeros((), jnp.int32),
    }

  model = pure(lambda rngs: Decoder(rngs=rngs, **config), init_cache)
  return model._replace(max_len=max_len)


SHARDING = [
  (r"(token_embedding|unembedding)/embedding", P("tensor", None)),
  *transformer.SHARDING,
]
