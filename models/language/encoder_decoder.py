"""The encoder-decoder transformer: Vaswani's, T5 and variants between them.

The shape legend is in models/layers/basic.py: S counts the source, T the
target.
"""

import operator

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P

from models import Model, pure
from models.language.decoder import Representation
from models.layers import encoder_decoder_blocks, partition, transformer
from models.layers.basic import (
  ACTIVATIONS,
  NORMS,
  Embedding,
  Norm,
  choose,
  dropout_layer,
  float_dtype,
)
from models.layers.positions import RelativeBias, sinusoids

POSITIONS = ("sinusoidal", "learned", "relative")


class EncoderDecoder(nnx.Module):
  """Maps two token sequences to logits; see `encoder_decoder` for arguments."""

  def __init__(
    self,
    *,
    vocab_size,
    layers,
    dim,
    positions,
    max_len,
    relative,
    norm,
    tie_embeddings,
    scale_embeddings,
    scale_logits,
    std,
    dropout,
    run,
    dtype,
    param_dtype,
    rngs,
    **block,
  ):
    self.dim, self.positions, self.max_len = dim, positions, max_len
    self.embedding_scale = dim**0.5 if scale_embeddings else 1.0
    self.logits_scale = dim**-0.5 if scale_logits else 1.0
    self.run, self.dtype = run, dtype
    common = {"dtype": dtype, "param_dtype": param_dtype}

    def table(entries, std):
      return Embedding(entries, dim, std=std, rngs=rngs, **common)

    learned = positions == "learned"
    self.token_embedding = table(vocab_size, std)
    self.position_embedding = nnx.data(
      table(max_len, 0.02) if learned else None
    )
    self.dropout = nnx.data(dropout_layer(dropout, rngs))
    for name, count in zip(("encoder", "decoder"), layers, strict=True):
      cross = name == "decoder"
      bias = None
      if positions == "relative":
        how = {"std": dim**-0.5, "rngs": rngs, "param_dtype": param_dtype}
        bias = RelativeBias(both_ways=not cross, **relative, **how)
      setattr(self, f"{name}_bias", nnx.data(bias))
      stack = transformer.stacked_blocks(
        count,
        rngs,
        dim,
        kind=encoder_decoder_blocks.Block,
        norm=norm,
        cross=cross,
        dropout=dropout,
        **block,
        **common,
      )
      setattr(self, name, stack)
      last = Norm(dim, param_dtype=param_dtype, **norm)
      setattr(
        self, f"{name}_norm", nnx.data(last if block["norm_first"] else None)
      )
    self.unembedding = nnx.data(
      None if tie_embeddings else table(vocab_size, dim**-0.5)
    )

  def __call__(self, inputs_BS, tokens_BT, **where):
    """Returns logits_BTV float32 of the token after each of tokens_BT.

    For the arguments see `begin`. tokens_BT is a start token, followed by the
    targets.
    """
    return self._logits(self.represent(inputs_BS, tokens_BT, **where).x_BTD)

  def represent(self, inputs_BS, tokens_BT, **where) -> Representation:
    """Returns the Representation of the target; arguments as in `begin`."""
    x_BTD, where = self.begin(inputs_BS, tokens_BT, **where)
    x_BTD, _, _ = transformer.run_blocks(
      self.decoder, x_BTD, **self.run, **where
    )
    x_BTD = self._last(self.decoder_norm, x_BTD) * self.logits_scale
    table_VD = (self.unembedding or self.token_embedding).table()
    return Representation(x_BTD, table_VD, {}, None)

  def begin(
    self,
    inputs_BS,
    tokens_BT,
    *,
    input_segments_BS=None,
    input_positions_BS=None,
    segments_BT=None,
    positions_BT=None,
  ):
    """Returns (x_BTD, the decoder's input; the arguments of its blocks).

    Args:
      inputs_BS: int32, the source.
      tokens_BT: int32, the target shifted right by one token.
      input_segments_BS: int32, the number of the pair in a packed row, 0 on
        padding; None if a row is one pair without padding.
      input_positions_BS: int32; counted from the row's start if None.
      segments_BT: int32, the same for the target. If None beside
        input_segments_BS, the row is one pair, of segment 1.
      positions_BT: int32, the same for the target.
    """
    memory_BSD = self.encode(inputs_BS, input_segments_BS, input_positions_BS)
    (B, T), S = tokens_BT.shape, inputs_BS.shape[1]
    seen_BTS = jnp.ones((B, 1, S), bool)
    if input_segments_BS is not None:
      own_BT = segments_BT
      if own_BT is None:
        own_BT = jnp.ones((B, 1), jnp.int32)
      seen_BTS = own_BT[:, :, None] == input_segments_BS[:, None]
    places_T = jnp.arange(T)
    return self._embed(tokens_BT, positions_BT, 0), {
      "memory_BSD": memory_BSD,
      "seen_BNTS": seen_BTS[:, None],
      "segments_BT": segments_BT,
      "bias_BNTS": _bias(self.decoder_bias, places_T, places_T),
    }

  def encode(self, inputs_BS, segments_BS=None, positions_BS=None):
    """Returns memory_BSD, the encoder's output; see `begin`."""
    for axis in ("stage", "context"):
      if partition.axis_size(axis) > 1:
        raise ValueError(f"encoder_decoder is not cut over the axis {axis!r}")
    x_BSD = self._embed(inputs_BS, positions_BS, 0)
    places_S = jnp.arange(inputs_BS.shape[1])
    x_BSD, _, _ = transformer.run_blocks(
      self.encoder,
      x_BSD,
      **self.run,
      segments_BT=segments_BS,
      bias_BNTS=_bias(self.encoder_bias, places_S, places_S),
    )
    return self._last(self.encoder_norm, x_BSD)

  def start(self, inputs_BS, input_segments_BS=None, *, length):
    """Returns the cache before the first target token, for at most `length`.

    It holds the keys and values of the memory, computed once. Each row is one
    pair, padded with segment 0.
    """
    memory_BSD = self.encode(inputs_BS, input_segments_BS)
    graphdef, state_L = nnx.split(self.decoder)

    def remember(state):
      return nnx.merge(graphdef, state).cross.remember(memory_BSD)

    key_LBSNH, value_LBSNH = jax.vmap(remember)(state_L)
    L, B, _, N, H = key_LBSNH.shape
    if input_segments_BS is None:
      input_segments_BS = jnp.ones(inputs_BS.shape, jnp.int32)
    empty = jnp.zeros((L, B, length, N, H), key_LBSNH.dtype)
    return {
      "key": empty,
      "value": empty,
      "memory_key": key_LBSNH,
      "memory_value": value_LBSNH,
      # With an axis before the batch axis, like every leaf of a cache.
      "memory_segments": input_segments_BS[None],
      "length": jnp.zeros((), jnp.int32),
    }

  def decode(self, tokens_BT, cache):
    """Returns (logits_BTV, the extended cache), given a cache of `start`."""
    length, T = cache["length"], tokens_BT.shape[1]
    places_T = length + jnp.arange(T)
    x_BTD = self._embed(tokens_BT, None, length)
    whole = ("length", "memory_segments")
    layered = {k: v for k, v in cache.items() if k not in whole}
    keys_S = jnp.arange(cache["key"].shape[2])
    seen_BS = cache["memory_segments"][0] == 1
    x_BTD, grown, _ = transformer.run_blocks(
      self.decoder,
      x_BTD,
      layered,
      length,
      **self.run,
      bias_BNTS=_bias(self.decoder_bias, places_T, keys_S),
      seen_BNTS=seen_BS[:, None, None],
    )
    x_BTD = self._last(self.decoder_norm, x_BTD) * self.logits_scale
    # Unchanged leaves remain the same arrays, for callers that reorder rows.
    memory = {k: v for k, v in cache.items() if k.startswith("memory")}
    return self._logits(x_BTD), grown | memory | {"length": length + T}

  def attention_maps(self, inputs_BS, tokens_BT, **where):
    """Returns attention weights from target to source, float32 [B, L, N, T, S].

    Row t has the weights for predicting the token after tokens_BT[:, t]; the
    arguments are those of `begin`.
    """
    x_BTD, where = self.begin(inputs_BS, tokens_BT, **where)
    graphdef, state_L = nnx.split(self.decoder)
    maps = []
    for layer in range(jax.tree.leaves(state_L)[0].shape[0]):
      state = jax.tree.map(operator.itemgetter(layer), state_L)
      block = nnx.merge(graphdef, state)
      seen_BTD, _ = block.attend(x_BTD, **where)
      maps.append(block.recall_weights(seen_BTD, **where))
      x_BTD, _, _ = block(x_BTD, **where)
    return jnp.stack(maps, axis=1)

  def _embed(self, tokens_BT, positions_BT, length) -> jax.Array:
    x_BTD = self.token_embedding(tokens_BT) * self.embedding_scale
    if positions_BT is None:
      positions_BT = length + jnp.arange(tokens_BT.shape[1])[None]
    if self.positions == "sinusoidal":
      x_BTD += sinusoids(positions_BT, self.dim).astype(self.dtype)
    if self.position_embedding is not None:
      if (T := tokens_BT.shape[1]) > self.max_len:
        raise ValueError(f"{T} tokens, but the model's max_len={self.max_len}")
      x_BTD += self.position_embedding(positions_BT)
    x_BTD = partition.place(x_BTD, "BRD")
    return x_BTD if self.dropout is None else self.dropout(x_BTD)

  def _last(self, norm, x_BTD) -> jax.Array:
    x_BTD = x_BTD if norm is None else norm(x_BTD)
    if self.positions == "relative" and self.dropout is not None:
      x_BTD = self.dropout(x_BTD)  # T5 has it here as well
    return partition.place(x_BTD, "BTD")

  def _logits(self, x_BTD) -> jax.Array:
    return (self.unembedding or self.token_embedding).attend(x_BTD)


def _bias(bias: RelativeBias | None, t_T, s_S) -> jax.Array | None:
  return None if bias is None else bias(t_T, s_S)


def encoder_decoder(
  *,
  vocab_size: int,
  layers: int = 6,
  decoder_layers: int | None = None,
  dim: int = 512,
  heads: int = 8,
  head_dim: int | None = None,
  hidden: int | None = None,
  positions: str = "sinusoidal",
  buckets: int = 32,
  farthest: int = 128,
  norm: str = "layernorm",
  norm_eps: float = 1e-5,
  norm_first: bool = False,
  activation: str = "relu",
  bias: bool = True,
  tie_embeddings: bool = True,
  scale_embeddings: bool = True,
  scale_scores: bool = True,
  scale_logits: bool = False,
  dropout: float = 0.1,
  max_len: int = 512,
  scan: bool = True,
  remat: str = "none",
  dtype: str = "float32",
  param_dtype: str = "float32",
) -> Model:
  """A model of targets given sources, (inputs_BS, tokens_BT) -> logits_BTV.

  The defaults are the base model of Vaswani et al. (arXiv:1706.03762), with one
  table for both sequences and the softmax. T5 (arXiv:1910.10683) has positions
  "relative", norm "rmsnorm" with eps 1e-6, norm_first, no bias, no
  scale_embeddings, no scale_scores; its first version has scale_logits, the
  second ("v1.1") activation "geglu" and untied embeddings.

  Methods of `apply` besides the call and "represent": "encode"; "start", which
  returns a cache with the memory's keys and values, and "decode", which
  continues from it; "attention_maps". See EncoderDecoder.

  Weights are initialized from normal(1 / sqrt(inputs)), or Glorot's uniform if
  scores are scaled; embeddings such that the input of the first layer has
  variance 1.

  Args:
    vocab_size: V, of both sequences.
    layers: of the encoder.
    decoder_layers: of the decoder; as many as of the encoder if None.
    dim: D, the residual stream.
    heads: N.
    head_dim: H; D / N if None.
    hidden: F; 4 D if None.
    positions: "sinusoidal", "learned" or "relative".
    buckets: of relative positions, in each of the two stacks.
    farthest: the distance from which on all distances share a bucket.
    norm: "layernorm" or "rmsnorm".
    norm_eps: added to the variance.
    norm_first: whether to norm the input of each layer (and the output of a
      stack) instead of the residual stream after it (arXiv:2002.04745).
    activation: a name in layers.ACTIVATIONS.
    bias: of all projections and layer norms.
    tie_embeddings: unembed with the token embedding.
    scale_embeddings: multiply them by sqrt(D).
    scale_scores: divide the scores of attention by sqrt(H).
    scale_logits: divide the logits by sqrt(D).
    dropout: rate for embeddings and for the inputs of the residual stream.
    max_len: the longest sequence, for learned positions.
    scan: compile one layer of a stack and loop over it.
    remat: a name in transformer.REMAT.
    dtype: of the computation.
    param_dtype: of the parameters.

  Raises:
    ValueError: a choice is unknown, or sizes do not divide.
  """
  if head_dim is None and dim % heads:
    raise ValueError(f"dim = {dim} is not a multiple of heads = {heads}")
  head_dim, hidden = head_dim or dim // heads, hidden or 4 * dim
  draw = nnx.initializers.variance_scaling
  if scale_scores:
    inner = query = down = draw(1.0, "fan_avg", "uniform")
  else:
    inner = down = draw(1.0, "fan_in", "normal")
    query = draw(1.0 / head_dim, "fan_in", "normal")
  config = {
    "vocab_size": vocab_size,
    "layers": (layers, layers if decoder_layers is None else decoder_layers),
    "dim": dim,
    "positions": choose("positions", positions, POSITIONS),
    "max_len": max_len,
    "relative": {"heads": heads, "buckets": buckets, "farthest": farthest},
    "norm": {
      "kind": choose("norm", norm, NORMS),
      "eps": norm_eps,
      "bias": bias,
    },
    "norm_first": norm_first,
    "tie_embeddings": tie_embeddings,
    "scale_embeddings": scale_embeddings,
    "scale_logits": scale_logits,
    "std": dim**-0.5 if scale_embeddings else 1.0,
    "dropout": dropout,
    "run": {
      "scan": scan,
      "remat": choose("remat", remat, transformer.REMAT),
    },
    "attention": {
      "heads": heads,
      "head_dim": head_dim,
      "scale_scores": scale_scores,
      "query_init": query,
    },
    "feed_forward": {
      "hidden": hidden,
      "activation": choose("activation", activation, ACTIVATIONS),
      "out_init": down,
    },
    "kernel_init": inner,
    "bias": bias,
    "dtype": float_dtype("dtype", dtype),
    "param_dtype": float_dtype("param_dtype", param_dtype),
  }
  model = pure(lambda rngs: EncoderDecoder(rngs=rngs, **config))
  limit = max_len if positions == "learned" else None
  return model._replace(max_len=limit, represents=True)


# See the comment on the blocks in models/layers/transformer.py.
_IN = "coder/((attention|cross)/(query|key|value)|feed_forward/(up|gate))"
_OUT = "coder/((attention|cross)/out|feed_forward/down)"
SHARDING = [
  (r"(token_embedding|unembedding)/embedding", P("tensor", None)),
  (_IN + "/kernel", P(None, None, "tensor")),
  (_IN + "/bias", P(None, "tensor")),
  (_OUT + "/kernel", P(None, "tensor", None)),
]
