"""A convolutional tagger: labels each word from the words around it.

The shape legend is in models/layers/basic.py; here F counts features of a word.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P

from models import Model, pure
from models.layers import separable
from models.layers.basic import Dense, Embedding, dropout_layer, float_dtype


class Tagger(nnx.Module):
  """Maps tokens to logits; `tagger` documents the arguments."""

  def __init__(
    self,
    *,
    vocab_size,
    num_classes,
    dim,
    dilations,
    width,
    dropout,
    feature_dropout,
    **common,
  ):
    rngs = common["rngs"]
    self.token_embedding = Embedding(vocab_size, dim, **common)
    self.dropout = nnx.data(dropout_layer(dropout, rngs))
    self.forget = nnx.data(
      dropout_layer(feature_dropout, rngs, broadcast_dims=(3,))
    )
    self.stack = separable.SeparableStack(
      dim, dilations, width=width, dropout=dropout, **common
    )
    self.head = Dense(dim, num_classes, **common)

  def __call__(self, tokens, segments_BT=None):
    """Returns logits_BTC, float32."""
    return self.head(self.features(tokens, segments_BT)).astype("float32")

  def features(self, tokens, segments_BT=None):
    """Returns x_BTD, the input of the head."""
    x = self.token_embedding(tokens.reshape(tokens.shape[0], -1))
    if tokens.ndim == 3:
      B, T, F = tokens.shape
      x = x.reshape(B, T, F, -1) * (tokens > 0)[..., None]
      if self.forget is not None:
        x = self.forget(x)
      x = jnp.sum(x, axis=2)
    # Vectors from normal(0.02) are small compared to the blocks' outputs.
    x_BTD = x * 10.0
    if self.dropout is not None:
      x_BTD = self.dropout(x_BTD)
    if segments_BT is None:
      segments_BT = jnp.ones(x_BTD.shape[:2], jnp.int32)
    real_BT1 = (segments_BT > 0)[..., None].astype(x_BTD.dtype)
    return self.stack(x_BTD, real_BT1)


def tagger(
  *,
  vocab_size: int,
  num_classes: int,
  dim: int = 128,
  dilations: Sequence[int] = (1, 2, 4),
  width: int = 3,
  dropout: float = 0.5,
  feature_dropout: float = 0.0,
  dtype: str = "float32",
  param_dtype: str = "float32",
) -> Model:
  """A tagger, tokens_BT or hashed words [B, T, F] -> logits_BTC in float32.

  A word is the sum of the vectors of its features (fastText, arXiv:1607.04606;
  0 is no feature), and dilated convolutions read the words around it (Strubell
  et al., arXiv:1702.02098). segments_BT is 0 on padding, which is ignored.

  Args:
    vocab_size: V; with hashed words the `buckets` of the rows.
    num_classes: C.
    dim: D.
    dilations: of each block.
    width: the number of positions in a convolution's kernel; odd.
    dropout: rate for the words' vectors and for the outputs of the blocks.
    feature_dropout: rate at which a feature of a hashed word is dropped; a rare
      word is then recognized by its shape and its parts.
    dtype: of the computation.
    param_dtype: of the parameters.

  Raises:
    ValueError: the width is even, there is no dilation, a rate is outside [0,
      1), or a dtype is unknown.
  """
  if not 0.0 <= feature_dropout < 1.0:
    raise ValueError(f"feature_dropout = {feature_dropout} is not in [0, 1)")
  separable.check(width, dilations)
  config = {
    "vocab_size": vocab_size,
    "num_classes": num_classes,
    "dim": dim,
    "dilations": tuple(dilations),
    "width": width,
    "dropout": dropout,
    "feature_dropout": feature_dropout,
    "dtype": float_dtype("dtype", dtype),
    "param_dtype": float_dtype("param_dtype", param_dtype),
  }
  return pure(lambda rngs: Tagger(rngs=rngs, **config))


SHARDING = [(r"token_embedding/embedding", P("tensor", None))]
