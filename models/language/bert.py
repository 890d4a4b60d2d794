"""BERT: a bidirectional transformer with one of four heads.

The shape legend is in models/layers/basic.py; P counts the predicted positions.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P

from models import Model, pure
from models.layers import partition, quantization, transformer
from models.layers.basic import (
  ACTIVATIONS,
  NORMS,
  Dense,
  Embedding,
  Norm,
  along_last,
  choose,
  dropout_layer,
  float_dtype,
)

HEADS = ("mlm", "classes", "tokens", "span")
POSITIONS = ("learned", "rotary")
POOLING = ("first", "mean")


class Pooled(nnx.Module):
  """Logits of an entire row: output(dropout(tanh(pooler(x)))).

  Attributes:
    pooling: whether x is the row's first token or the mean of its tokens.
    pooler: D to D.
    output: D to C.
  """

  def __init__(self, dim, outputs, dropout, pooling="first", **common):
    self.pooling = pooling
    self.pooler = Dense(dim, dim, **common)
    self.output = Dense(dim, outputs, **common)
    self.dropout = nnx.data(dropout_layer(dropout, common["rngs"]))

  def __call__(self, x_BTD, segments_BT=None):
    """Returns logits_BC, float32; segments_BT is 0 on padding."""
    if self.pooling == "mean":
      x_BD = _mean(x_BTD, segments_BT)
    else:
      x_BD = x_BTD[:, 0]
    pooled_BD = jnp.tanh(self.pooler(x_BD))
    if self.dropout is not None:
      pooled_BD = self.dropout(pooled_BD)
    return self.output(pooled_BD).astype(jnp.float32)


class EachToken(nnx.Module):
  """Logits of every token: output(dropout(x))."""

  def __init__(self, dim, outputs, dropout, **common):
    self.output = Dense(dim, outputs, **common)
    self.dropout = nnx.data(dropout_layer(dropout, common["rngs"]))

  def __call__(self, x_BTD):
    """Returns logits_BTC, float32."""
    x_BTD = x_BTD if self.dropout is None else self.dropout(x_BTD)
    return self.output(x_BTD).astype(jnp.float32)


class MaskedTokens(nnx.Module):
  """Logits over the vocabulary: norm(gelu(transform(x))) E^T + bias.

  E is the token embedding. The optional `next_sentence` predicts whether the
  second segment follows the first.
  """

  def __init__(self, dim, vocab_size, norm, next_sentence, **common):
    self.transform = Dense(dim, dim, **common)
    self.norm = Norm(dim, param_dtype=common["param_dtype"], **norm)
    self.bias = nnx.Param(jnp.zeros((vocab_size,), common["param_dtype"]))
    self.next_sentence = nnx.data(
      Pooled(dim, 2, 0.0, **common) if next_sentence else None
    )

  def __call__(self, x_BPD, embedding):
    """Returns logits_BPV, float32."""
    y_BPD = self.norm(ACTIVATIONS["gelu_exact"](self.transform(x_BPD)))
    logits_BPV = embedding.attend(y_BPD)
    return logits_BPV + along_last(self.bias[...].astype(jnp.float32), 3)


class Bert(nnx.Module):
  """Maps tokens to the head's outputs; `bert` documents the arguments."""

  def __init__(
    self,
    *,
    vocab_size,
    count,
    dim,
    max_len,
    types,
    positions,
    head,
    num_classes,
    next_sentence,
    pooling,
    norm,
    word_dropout,
    dropout,
    run,
    rngs,
    **block,
  ):
    self.max_len, self.kind, self.run = max_len, head, run
    common = {k: block[k] for k in ("dtype", "param_dtype")} | {"rngs": rngs}
    normed = norm | {"param_dtype": block["param_dtype"]}
    self.token_embedding = Embedding(vocab_size, dim, **common)
    self.position_embedding = nnx.data(
      Embedding(max_len, dim, **common) if positions == "learned" else None
    )
    self.type_embedding = Embedding(types, dim, **common)
    self.embedding_norm = Norm(dim, **normed)
    self.word_dropout = nnx.data(
      dropout_layer(word_dropout, rngs, broadcast_dims=(2,))
    )
    self.dropout = nnx.data(dropout_layer(dropout, rngs))
    self.blocks = transformer.stacked_blocks(
      count, rngs, dim, norm=norm, dropout=dropout, **block
    )
    self.final_norm = nnx.data(
      None if block["post_norm"] else Norm(dim, **normed)
    )
    if head == "mlm":
      self.head = MaskedTokens(dim, vocab_size, norm, next_sentence, **common)
    elif head == "classes":
      self.head = Pooled(dim, num_classes, dropout, pooling, **common)
    else:
      outputs = 2 if head == "span" else num_classes
      self.head = EachToken(dim, outputs, dropout, **common)

  def __call__(self, tokens_BT, places_BP=None, **where):
    """Returns the head's outputs, float32; for `where` see `features`.

    "mlm" gives logits_BTV, or with places_BP, int32, only those of these
    positions, logits_BPV; "classes" gives logits_BC, "tokens" logits_BTC, and
    "span" the logits of the start and of the end, (start_BT, end_BT).
    """
    x_BTD = self.features(tokens_BT, **where)
    if self.kind == "mlm":
      return self.head(_at(x_BTD, places_BP), self.token_embedding)
    if self.kind == "classes":
      return self.head(x_BTD, where.get("segments_BT"))
    logits = self.head(x_BTD)
    return (logits[..., 0], logits[..., 1]) if self.kind == "span" else logits

  def pretrain(self, tokens_BT, places_BP=None, **where):
    """Returns (logits of the masked tokens, next-sentence logits_B2).

    Class 0 is a second segment that follows the first, 1 a random one.
    """
    x_BTD = self.features(tokens_BT, **where)
    logits_BPV = self.head(_at(x_BTD, places_BP), self.token_embedding)
    return logits_BPV, self.head.next_sentence(x_BTD)

  def features(
    self, tokens_BT, types_BT=None, segments_BT=None, positions_BT=None
  ):
    """Returns x_BTD, the input of the head.

    Args:
      tokens_BT: int32.
      types_BT: int32, 0 for the first sentence and 1 for the second; 0 if None.
      segments_BT: int32, 0 on padding; a token attends only to its own segment.
      positions_BT: int32; counted from the row's first token if None.
    """
    T = tokens_BT.shape[1]
    if self.position_embedding is not None and self.max_len < T:
      raise ValueError(f"{T} tokens, but the model's max_len = {self.max_len}")
    if positions_BT is None:
      parts = partition.axis_size("context")
      positions_BT = jnp.asarray(partition.zigzag(T, parts))[None]
    if types_BT is None:
      types_BT = jnp.zeros_like(tokens_BT)
    x_BTD = self.token_embedding(tokens_BT)
    if self.word_dropout is not None:
      x_BTD = self.word_dropout(x_BTD)
    x_BTD += self.type_embedding(types_BT)
    if self.position_embedding is not None:
      x_BTD += self.position_embedding(positions_BT)
    x_BTD = partition.place(self.embedding_norm(x_BTD), "BRD")
    if self.dropout is not None:
      x_BTD = self.dropout(x_BTD)
    x_BTD, _, _ = transformer.run_blocks(
      self.blocks,
      x_BTD,
      positions_BT=positions_BT,
      segments_BT=segments_BT,
      **self.run,
    )
    if self.final_norm is not None:
      x_BTD = self.final_norm(x_BTD)
    return partition.place(x_BTD, "BTD")


def _mean(x_BTD: jax.Array, segments_BT: jax.Array | None) -> jax.Array:
  """Returns the mean of a row's tokens, x_BD; zeros if it has none."""
  if segments_BT is None:
    return x_BTD.mean(axis=1)
  real_BT = (segments_BT > 0).astype(x_BTD.dtype)
  share_BT = real_BT / jnp.maximum(real_BT.sum(axis=1, keepdims=True), 1)
  return jnp.einsum("BT,BTD->BD", share_BT, x_BTD)


def _at(x_BTD: jax.Array, places_BP: jax.Array | None) -> jax.Array:
  """Returns the vectors at these positions, x_BPD; all of them if None."""
  if places_BP is None:
    return x_BTD
  return jnp.take_along_axis(x_BTD, places_BP[:, :, None], axis=1)


def bert(
  *,
  vocab_size: int,
  layers: int = 12,
  dim: int = 768,
  heads: int = 12,
  hidden: int | None = None,
  max_len: int = 512,
  types: int = 2,
  head: str = "mlm",
  num_classes: int | None = None,
  pooling: str = "first",
  next_sentence: bool = False,
  positions: str = "learned",
  rope_theta: float = 10000.0,
  norm_first: bool = False,
  norm: str = "layernorm",
  norm_eps: float = 1e-12,
  activation: str = "gelu_exact",
  word_dropout: float = 0.0,
  dropout: float = 0.1,
  scan: bool = True,
  remat: str = "none",
  stage_microbatches: int | None = None,
  matmul: str | None = None,
  dtype: str = "float32",
  param_dtype: str = "float32",
) -> Model:
  """A bidirectional encoder, tokens_BT -> the head's outputs, in float32.

  BERT's architecture (arXiv:1810.04805), except that dropout is not applied to
  the attention weights; the defaults are BERT base. All weights are initialized
  from normal(0.02). The parameters of the body are the same for every head; a
  head's are under "head/". `Bert.__call__`, `Bert.features` and `Bert.pretrain`
  document the inputs and outputs of the model and its methods.

  Args:
    vocab_size: V.
    layers: number of blocks.
    dim: D, the residual stream.
    heads: N, a divisor of D.
    hidden: F; 4 D if None.
    max_len: the longest row.
    types: the number of segment types in a row, such as question and text.
    head: "mlm", "classes", "tokens" or "span".
    num_classes: C, for "classes" and "tokens".
    pooling: the input of "classes": the "first" token or the "mean" of all.
    next_sentence: for "mlm": whether it has the method "pretrain".
    positions: "learned" or "rotary".
    rope_theta: base of the rotary frequencies.
    norm_first: norms before attention and feed-forward network, and after the
      last block, instead of BERT's norms after each sum (arXiv:2002.04745).
    norm: "layernorm" or "rmsnorm".
    norm_eps: added to the variance.
    activation: "gelu_exact", "gelu" (tanh approximation) or "swiglu".
    word_dropout: rate at which a token's entire vector is dropped (Iyyer et al.
      2015).
    dropout: rate for embeddings, the inputs of the residual stream, and the
      inputs of the last layer.
    scan: compile one layer and loop over it; otherwise compile each layer
      separately, with the same parameters.
    remat: what is recomputed in the backward pass; a name in transformer.REMAT.
    stage_microbatches: the number of microbatches of the pipeline; the number
      of stages if None.
    matmul: "int8" or "fp8" for 8-bit dense layers in the blocks; see
      models/layers/quantization.py.
    dtype: of the computation.
    param_dtype: of the parameters.

  Raises:
    ValueError: a choice is unknown, sizes do not divide, or num_classes is
      missing.
  """
  choose("head", head, HEADS)
  if head in ("classes", "tokens") and not num_classes:
    raise ValueError(f'head = "{head}" needs num_classes')
  if next_sentence and head != "mlm":
    raise ValueError(f'next_sentence needs head = "mlm", not "{head}"')
  if dim % heads:
    raise ValueError(f"dim = {dim} is not a multiple of heads = {heads}")
  if choose("positions", positions, POSITIONS) == "rotary" and dim // heads % 2:
    raise ValueError(
      f"dim / heads = {dim // heads} is odd: rotary positions need an even one"
    )
  hidden = hidden or 4 * dim
  init = nnx.initializers.normal(0.02)
  config = {
    "vocab_size": vocab_size,
    "count": layers,
    "dim": dim,
    "max_len": max_len,
    "types": types,
    "positions": positions,
    "head": head,
    "num_classes": num_classes,
    "next_sentence": next_sentence,
    "pooling": choose("pooling", pooling, POOLING),
    "post_norm": not norm_first,
    "norm": {"kind": choose("norm", norm, NORMS), "eps": norm_eps},
    "word_dropout": word_dropout,
    "dropout": dropout,
    "run": {
      "scan": scan,
      "remat": choose("remat", remat, transformer.REMAT),
      "stage_microbatches": stage_microbatches,
    },
    "attention": {
      "heads": heads,
      "kv_heads": heads,
      "head_dim": dim // heads,
      "causal": False,
      "rope_theta": rope_theta if positions == "rotary" else None,
      "out_init": init,
    },
    "feed_forward": {
      "hidden": hidden,
      "activation": choose("activation", activation, ACTIVATIONS),
      "out_init": init,
    },
    "bias": True,
    "matmul": quantization.check(matmul),
    "dtype": float_dtype("dtype", dtype),
    "param_dtype": float_dtype("param_dtype", param_dtype),
  }

  def flops(T):
    """Counts 2 per multiply-add; every token attends to every other."""
    matrices = 3 if activation == "swiglu" else 2
    layer = T * dim * (4 * dim + matrices * hidden) + 2 * dim * T * T
    outputs = {"classes": dim + (num_classes or 0), "span": 2 * T}
    outputs |= {"mlm": T * (dim + vocab_size), "tokens": T * (num_classes or 0)}
    return 2.0 * (layers * layer + dim * outputs[head])

  model = pure(lambda rngs: Bert(rngs=rngs, **config))
  return model._replace(max_len=max_len, flops=flops)


SHARDING = [
  (r"token_embedding/embedding", P("tensor", None)),
  *transformer.SHARDING,
]
