"""Bengio's neural probabilistic language model.

The shape legend stands in models/layers/basic.py; I is the number of tokens
read.
"""

import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P

from models import Model, pure
from models.language.ngram import contexts
from models.layers.basic import Dense, Embedding, dropout_layer, float_dtype


class Bengio(nnx.Module):
  """Tokens to logits; `bengio` documents the arguments."""

  def __init__(
    self, *, vocab_size, order, dim, hidden, direct, dropout, rngs, **common
  ):
    self.before, self.mark = order - 1, vocab_size
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
    """logits_BTV float32; with a cache, (logits_BTV, the cache after them)."""
    del positions_BT  # of packed rows; the segments say where one begins
    before_BI = None if cache is None else cache["context"].T
    context_IBT = contexts(
      tokens_BT, self.before, self.mark, before_BI, segments_BT
    )
    x_BTD = jnp.concatenate(
      [self.token_embedding(tokens) for tokens in context_IBT], axis=-1
    )
    h_BTF = jnp.tanh(self.hidden(x_BTD))
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
  direct: bool = True,
  dropout: float = 0.0,
  dtype: str = "float32",
  param_dtype: str = "float32",
) -> Model:
  """Bengio et al.'s language model (JMLR 3, 2003), tokens_BT -> logits_BTV.

  logits = b + W x + U tanh(d + H x), where x are the embeddings C(w) of the
  last n - 1 tokens, side by side; before a row, or a segment of it, begins,
  stands a mark with an embedding of its own. Their names here: C is
  "token_embedding", H and d "hidden", U and b "unembedding", W "direct".

  The cache is "context", int32 [n - 1, B], the last tokens.

  Args:
    vocab_size: V.
    order: n; the paper's is 5 or 6, of words.
    dim: of an embedding.
    hidden: F, units of the tanh layer.
    direct: connections from the embeddings to the logits.
    dropout: rate, of the tanh layer's output.
    dtype: of the computation.
    param_dtype: of the parameters.

  Raises:
    ValueError: order < 2, or an unknown dtype.
  """
  if order < 2:
    raise ValueError(f"order = {order} reads no token")
  config = {
    "vocab_size": vocab_size,
    "order": order,
    "dim": dim,
    "hidden": hidden,
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
    """2 a multiplication and its addition."""
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
