"""Bengio's neural probabilistic language model.

The shape legend is in models/layers/basic.py; I is the number of tokens read.
"""

import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P

from models import Model, pure
from models.language.ngram import contexts
from models.layers.basic import (
  ELEMENTWISE,
  Dense,
  Embedding,
  choose,
  dropout_layer,
  float_dtype,
)


class Bengio(nnx.Module):
  """Maps tokens to logits; `bengio` documents the arguments."""

  def __init__(
    self,
    *,
    vocab_size,
    order,
    dim,
    hidden,
    activation,
    direct,
    dropout,
    rngs,
    **common,
  ):
    self.before, self.mark = order - 1, vocab_size
    self.activation = activation
    inputs = self.before * dim
    self.token_embedding = Embedding(vocab_size + 1, dim, rngs=rngs, **common)
    self.hidden = Dense(
      inputs,
      hidden,
      axes="IF",
      kernel_init=nnx.initializers.lecun_normal(),
      rngs=rngs,
      **common,
    )
    self.dropout = nnx.data(dropout_layer(dropout, rngs))
    self.unembedding = Dense(hidden, vocab_size, axes="FV", rngs=rngs, **common)
    self.direct = nnx.data(
      Dense(inputs, vocab_size, axes="IV", bias=False, rngs=rngs, **common)
      if direct
      else None
    )

  def __call__(
    self, tokens_BT, cache=None, segments_BT=None, positions_BT=None
  ):
    """Returns logits_BTV float32; with a cache, also the updated cache."""
    del positions_BT  # In packed rows the segments mark the starts.
    before_BI = None if cache is None else cache["context"].T
    context_IBT = contexts(
      tokens_BT, self.before, self.mark, before_BI, segments_BT
    )
    x_BTD = jnp.concatenate(
      [self.token_embedding(tokens) for tokens in context_IBT], axis=-1
    )
    h_BTF = ELEMENTWISE[self.activation](self.hidden(x_BTD))
    if self.dropout is not None:
      h_BTF = self.dropout(h_BTF)
    logits_BTV = self.unembedding(h_BTF).astype(jnp.float32)
    if self.direct is not None:
      logits_BTV += self.direct(x_BTD).astype(jnp.float32)
    if cache is None:
      return logits_BTV
    last = jnp.stack([tokens[:, -1] for tokens in context_IBT])
    return logits_BTV, {"context": last}


def bengio(
  *,
  vocab_size: int,
  order: int = 5,
  dim: int = 60,
  hidden: int = 100,
  activation: str = "tanh",
  direct: bool = True,
  dropout: float = 0.0,
  dtype: str = "float32",
  param_dtype: str = "float32",
) -> Model:
  """Bengio et al.'s language model (JMLR 3, 2003), tokens_BT -> logits_BTV.

  logits = b + W x + U tanh(d + H x), where x is the concatenation of the
  embeddings C(w) of the last n - 1 tokens. Where fewer tokens precede in the
  row or segment, a special token with its own embedding pads them. In the
  parameters, C is "token_embedding", H and d are "hidden", U and b are
  "unembedding", and W is "direct".

  The cache is "context", int32 [n - 1, B], the last tokens.

  Args:
    vocab_size: V.
    order: n, the length of an n-gram: n - 1 tokens predict the next. The paper
      has 5 or 6 words.
    dim: the size of an embedding.
    hidden: F, the number of units of the hidden layer.
    activation: the activation of the hidden layer: "tanh", as in the paper,
      "relu", "gelu", "silu", "sigmoid" or "identity".
    direct: whether the embeddings are connected to the logits directly.
    dropout: the rate of dropout on the output of the hidden layer.
    dtype: the type of the computation.
    param_dtype: the type of the parameters.

  Raises:
    ValueError: order < 2, or the activation or a dtype is unknown.
  """
  if order < 2:
    raise ValueError(f"order = {order}: a model of order 2 reads one token")
  config = {
    "vocab_size": vocab_size,
    "order": order,
    "dim": dim,
    "hidden": hidden,
    "activation": choose("activation", activation, ELEMENTWISE),
    "direct": direct,
    "dropout": dropout,
    "dtype": float_dtype("dtype", dtype),
    "param_dtype": float_dtype("param_dtype", param_dtype),
  }

  def init_cache(batch_size, length, dtype=jnp.int32):
    del length, dtype
    shape = (order - 1, batch_size)
    return {"context": jnp.full(shape, vocab_size, jnp.int32)}

  def flops(T):
    """Counts forward FLOPs of T tokens, 2 per multiply-add."""
    inputs = (order - 1) * dim
    outputs = hidden + (vocab_size if direct else 0)
    return 2 * T * (inputs * outputs + hidden * vocab_size)

  model = pure(lambda rngs: Bengio(rngs=rngs, **config), init_cache)
  return model._replace(flops=flops)


SHARDING = [
  (r"hidden/kernel", P(None, "tensor")),
  (r"hidden/bias", P("tensor")),
  (r"unembedding/kernel", P("tensor", None)),
]
