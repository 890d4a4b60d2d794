"""The decoder-only transformer: GPT-2, Llama and variants between them.

The shape legend is in models/layers/basic.py.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P

from models import Model, pure
from models.layers import attention, partition, quantization, transformer
from models.layers.attention import positions_after
from models.layers.basic import (
  ACTIVATIONS,
  GATED,
  NORMS,
  Embedding,
  Norm,
  choose,
  dropout_layer,
  float_dtype,
)

POSITIONS = ("learned", "rotary")


class Representation(NamedTuple):
  """The inputs of a language model's logits, x_BTD unembedding_VD^T.

  x_BTD: after the last norm.
  unembedding_VD: in the dtype of the computation, as it is sharded.
  losses: auxiliary losses by name, float32 scalars; {} without experts.
  cache: None, or the cache extended by T.
  """

  x_BTD: jax.Array
  unembedding_VD: jax.Array
  losses: dict[str, jax.Array]
  cache: dict[str, jax.Array] | None


class Decoder(nnx.Module):
  """Maps tokens to logits; `decoder` documents the arguments."""

  def __init__(
    self,
    *,
    vocab_size,
    count,
    dim,
    positions,
    block_positions,
    norm,
    tie_embeddings,
    dropout,
    max_len,
    run,
    dtype,
    param_dtype,
    rngs,
    stacked=True,
    **block,
  ):
    self.max_len, self.run = max_len, run
    common = {"dtype": dtype, "param_dtype": param_dtype}
    self.token_embedding = Embedding(vocab_size, dim, rngs=rngs, **common)
    self.position_embedding = nnx.data(
      Embedding(max_len, dim, rngs=rngs, **common)
      if positions == "learned"
      else None
    )
    self.block_position_embedding = nnx.data(
      Embedding(max_len, dim, rngs=rngs, **common) if block_positions else None
    )
    self.dropout = nnx.data(dropout_layer(dropout, rngs))
    blocks = transformer.stacked_blocks if stacked else transformer.list_blocks
    self.blocks = blocks(
      count, rngs, dim, norm=norm, dropout=dropout, **block, **common
    )
    self.final_norm = Norm(dim, param_dtype=param_dtype, **norm)
    self.unembedding = nnx.data(
      None
      if tie_embeddings
      else Embedding(vocab_size, dim, rngs=rngs, **common)
    )

  def __call__(self, tokens_BT, cache=None, **where):
    """Returns logits_BTV float32; with a cache, also the extended cache."""
    found = self.represent(tokens_BT, cache, **where)
    logits_BTV = (self.unembedding or self.token_embedding).attend(found.x_BTD)
    return logits_BTV if cache is None else (logits_BTV, found.cache)

  def features(self, tokens_BT, **where):
    """Returns x_BTD after the last norm."""
    return self.represent(tokens_BT, **where).x_BTD

  def represent(
    self,
    tokens_BT,
    cache=None,
    positions_BT=None,
    segments_BT=None,
    block_positions_BT=None,
    prefix_B=None,
  ):
    """Returns the Representation of the tokens.

    Args:
      tokens_BT: int32.
      cache: None, or the cache of the preceding tokens.
      positions_BT: int32; counted from the end of the cache if None.
      segments_BT: int32, the number of the document in a packed row, 0 on
        padding; None if a row is one document.
      block_positions_BT: int32, positions within a blank, from 1, and 0
        outside; all 0 if None. For a model with block_positions.
      prefix_B: int32, the number of tokens of each row that every position
        attends to.
    """
    T = tokens_BT.shape[1]
    length = 0 if cache is None else cache["length"]
    if self.position_embedding is not None and self.max_len < T:
      raise ValueError(f"{T} tokens, but the model's max_len = {self.max_len}")
    if positions_BT is None:
      if cache is None:
        parts = partition.axis_size("context")
        positions_BT = jnp.asarray(partition.zigzag(T, parts))[None]
      else:
        positions_BT = positions_after(length, T)
    x_BTD = self.token_embedding(tokens_BT)
    if self.position_embedding is not None:
      x_BTD += self.position_embedding(positions_BT)
    if self.block_position_embedding is not None:
      if block_positions_BT is None:
        block_positions_BT = jnp.zeros((1, T), jnp.int32)
      x_BTD += self.block_position_embedding(block_positions_BT)
    x_BTD = partition.place(x_BTD, "BRD")
    if self.dropout is not None:
      x_BTD = self.dropout(x_BTD)
    layer_cache = cache and {k: v for k, v in cache.items() if k != "length"}
    x_BTD, layer_cache, losses = transformer.run_blocks(
      self.blocks,
      x_BTD,
      layer_cache,
      length,
      positions_BT=positions_BT,
      segments_BT=segments_BT,
      prefix_B=prefix_B,
      **self.run,
    )
    x_BTD = partition.place(self.final_norm(x_BTD), "BTD")
    return Representation(
      x_BTD,
      (self.unembedding or self.token_embedding).table(),
      losses,
      cache and dict(layer_cache, length=length + T),
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
  block_positions: bool = False,
  rope_theta: float = 10000.0,
  rope_scaling: dict | None = None,
  norm: str = "layernorm",
  norm_eps: float = 1e-5,
  activation: str = "gelu",
  bias: bool = True,
  tie_embeddings: bool = True,
  dropout: float = 0.0,
  max_len: int = 1024,
  window: int | None = None,
  soft_cap: float | None = None,
  experts: int | None = None,
  experts_per_token: int = 2,
  scan: bool = True,
  remat: str = "none",
  stage_microbatches: int | None = None,
  matmul: str | None = None,
  dtype: str = "float32",
  param_dtype: str = "float32",
) -> Model:
  """A causal language model, tokens_BT -> logits_BTV in float32.

  The defaults are GPT-2's architecture (Radford et al., 2019) and its
  initialization: normal(0.02), projections into the residual stream
  normal(0.02 / sqrt(2 layers)). Llama's (arXiv:2302.13971) is positions
  "rotary", norm "rmsnorm", activation "swiglu", no bias, untied embeddings.
  `apply` takes a cache from `init_cache` as `cache=`, appends its tokens
  (one or many) at cache["length"], and returns (logits, new cache). The length
  is a scalar, or [B] if the rows' lengths differ. The method "represent"
  returns a Representation instead of logits.

  Args:
    vocab_size: V.
    layers: number of blocks.
    dim: D, the residual stream.
    heads: N query heads.
    kv_heads: K key-value heads, a divisor of N; N if None.
    head_dim: H; D / N if None.
    hidden: F; if None 4 D, or for a gated activation, which has a third
      matrix, 8/3 D rounded up to a multiple of 8.
    positions: "learned" or "rotary".
    block_positions: whether to add a learned embedding of the positions within
      a blank that is filled in (GLM, arXiv:2103.10360).
    rope_theta: base of the rotary frequencies.
    rope_scaling: dict(rope_type="linear", factor=…), or "llama3" with more
      keys, see attention.RopeScaling; None for no scaling.
    norm: "layernorm" or "rmsnorm".
    norm_eps: added to the variance.
    activation: a name in layers.ACTIVATIONS: "gelu" (tanh approximation),
      "gelu_exact", "relu", or gated "swiglu" or "geglu".
    bias: of all projections and layer norms.
    tie_embeddings: unembed with the token embedding.
    dropout: rate for embeddings and for the inputs of the residual stream.
    max_len: the longest sequence; longer texts are sampled from a window.
    window: of attention, in tokens; None for all preceding tokens.
    soft_cap: of attention's scores; None for no cap.
    experts: E feed-forward networks instead of one (models/layers/moe.py).
    experts_per_token: the number of experts that process a token.
    scan: compile one layer and loop over it; otherwise compile each layer
      separately, with the same parameters.
    remat: what is recomputed in the backward pass; a name in transformer.REMAT.
    stage_microbatches: the number of microbatches of the pipeline; the number
      of stages if None.
    matmul: "int8" or "fp8" for 8-bit dense layers in the blocks, forward and
      backward, except in experts; see models/layers/quantization.py.
    dtype: of the computation.
    param_dtype: of the parameters.

  Raises:
    ValueError: a choice is unknown, or sizes do not divide.
  """
  kv_heads = kv_heads or heads
  if heads % kv_heads:
    raise ValueError(
      f"heads = {heads} is not a multiple of kv_heads = {kv_heads}"
    )
  if head_dim is None and dim % heads:
    raise ValueError(f"dim = {dim} is not a multiple of heads = {heads}")
  head_dim = head_dim or dim // heads
  if choose("positions", positions, POSITIONS) == "rotary" and head_dim % 2:
    raise ValueError(
      f"head_dim = {head_dim} is odd: rotary positions need an even number"
    )
  if hidden is None:
    hidden = -(-dim // 3) * 8 if activation in GATED else 4 * dim
  out_init = nnx.initializers.normal(0.02 / (2 * layers) ** 0.5)
  compute = float_dtype("dtype", dtype)
  config = {
    "vocab_size": vocab_size,
    "count": layers,
    "dim": dim,
    "positions": positions,
    "block_positions": block_positions,
    "norm": dict(kind=choose("norm", norm, NORMS), eps=norm_eps, bias=bias),
    "tie_embeddings": tie_embeddings,
    "dropout": dropout,
    "max_len": max_len,
    "run": {
      "scan": scan,
      "remat": choose("remat", remat, transformer.REMAT),
      "stage_microbatches": stage_microbatches,
    },
    "attention": {
      "heads": heads,
      "kv_heads": kv_heads,
      "head_dim": head_dim,
      "causal": True,
      "rope_theta": rope_theta if positions == "rotary" else None,
      "rope_scaling": attention.rope_scaling(rope_scaling),
      "window": window,
      "soft_cap": soft_cap,
      "out_init": out_init,
    },
    "feed_forward": {
      "hidden": hidden,
      "activation": choose("activation", activation, ACTIVATIONS),
      "out_init": out_init,
      **_mixture(experts, experts_per_token),
    },
    "bias": bias,
    "matmul": quantization.check(matmul),
    "dtype": compute,
    "param_dtype": float_dtype("param_dtype", param_dtype),
  }

  def init_cache(batch_size, length, dtype=compute):
    if positions == "learned" and length > max_len:
      raise ValueError(f"{length} tokens, but the model's max_len = {max_len}")
    shape = (layers, batch_size, kv_heads, length, head_dim)
    return {
      "key": jnp.zeros(shape, dtype),
      "value": jnp.zeros(shape, dtype),
      "length": jnp.zeros((), jnp.int32),
    }

  def flops(T):
    """Counts 2 per multiply-add; a token attends to half the window."""
    seen = min(window or T, T)
    pairs = T * seen - seen * (seen - 1) / 2
    matrices = 3 if activation in GATED else 2
    width = matrices * hidden * (experts_per_token if experts else 1)
    attention = dim * head_dim * (2 * heads + 2 * kv_heads)
    weights = attention + dim * (width + (experts or 0))
    scores = 2 * heads * head_dim * pairs
    return 2 * (layers * (T * weights + scores) + T * dim * vocab_size)

  model = pure(lambda rngs: Decoder(rngs=rngs, **config), init_cache)
  model = model._replace(max_len=max_len, flops=flops, represents=True)
  return model._replace(unstacked=_unstacked(model, config))


def _unstacked(model: Model, config: dict):
  """Returns Model.unstacked for a decoder and the arguments of its module."""
  layers = config["count"]

  def init_cache(batch_size, length, dtype=config["dtype"]):
    shapes = jax.eval_shape(lambda: model.init_cache(batch_size, length, dtype))
    count = shapes.pop("length")

    def layer():
      return jax.tree.map(lambda x: jnp.zeros(x.shape[1:], x.dtype), shapes)

    cache = {str(i): layer() for i in range(layers)}
    return cache | {"length": jnp.zeros(count.shape, count.dtype)}

  apart = pure(
    lambda rngs: Decoder(rngs=rngs, stacked=False, **config), init_cache
  )

  def unstacked(params):
    blocks = transformer.apart_without_copies(params["blocks"], layers)
    network = model._replace(
      init=apart.init, apply=apart.apply, init_cache=init_cache, unstacked=None
    )
    return network, params | {"blocks": blocks}

  return unstacked


def _mixture(experts, experts_per_token) -> dict[str, int]:
  """Returns the arguments of a mixture of experts; {} without one."""
  if experts is None:
    return {}
  if not 1 <= experts_per_token <= experts:
    raise ValueError(
      f"experts_per_token = {experts_per_token} is not in 1 … {experts}"
    )
  return {"experts": experts, "experts_per_token": experts_per_token}


SHARDING = [
  (r"(token_embedding|unembedding)/embedding", P("tensor", None)),
  *transformer.SHARDING,
]
