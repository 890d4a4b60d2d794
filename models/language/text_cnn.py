"""A convolutional network over the words of a text (Kim, 2014).

The shape legend is in models/layers/basic.py; W is the width of a window.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P

from models import Model, pure
from models.layers.basic import (
  Dense,
  Embedding,
  check_rate,
  dropout_layer,
  float_dtype,
)


class TextCNN(nnx.Module):
  """Maps tokens to logits; `text_cnn` documents the arguments."""

  def __init__(
    self,
    *,
    vocab_size,
    num_classes,
    dim,
    widths,
    filters,
    word_dropout,
    dropout,
    rngs,
    **common,
  ):
    self.widths = widths
    self.embedding = Embedding(vocab_size, dim, rngs=rngs, **common)
    init = nnx.initializers.lecun_normal()
    self.filters = nnx.Dict(
      {
        str(W): Dense(W * dim, filters, kernel_init=init, rngs=rngs, **common)
        for W in widths
      }
    )
    self.word_dropout = nnx.data(
      dropout_layer(word_dropout, rngs, broadcast_dims=(2,))
    )
    self.dropout = nnx.data(dropout_layer(dropout, rngs))
    self.output = Dense(filters * len(widths), num_classes, rngs=rngs, **common)

  def __call__(self, tokens_BT, types_BT=None, segments_BT=None):
    """Returns logits_BC, float32; see `features`."""
    x_BD = self.features(tokens_BT, types_BT, segments_BT)
    if self.dropout is not None:
      x_BD = self.dropout(x_BD)
    return self.output(x_BD).astype(jnp.float32)

  def features(self, tokens_BT, types_BT=None, segments_BT=None):
    """Returns x_BD, the maximum of each filter over all windows of the row.

    A window may extend beyond the ends of the text, where all is 0.

    Args:
      tokens_BT: int32.
      types_BT: ignored.
      segments_BT: int32, 0 on padding.
    """
    del types_BT
    if segments_BT is None:
      segments_BT = jnp.ones_like(tokens_BT)
    real_BT = segments_BT > 0
    x_BTD = self.embedding(tokens_BT)
    if self.word_dropout is not None:
      x_BTD = self.word_dropout(x_BTD)
    x_BTD = jnp.where(real_BT[:, :, None], x_BTD, 0)
    found = []
    for W in self.widths:
      ends = ((0, 0), (W - 1, W - 1))
      padded_BTD = jnp.pad(x_BTD, (*ends, (0, 0)))
      padded_BT = jnp.pad(real_BT, ends)
      count = real_BT.shape[1] + W - 1
      # As one product over unfolded windows: XLA's convolutions along one axis
      # are slow on a CPU.
      windows = [padded_BTD[:, i : i + count] for i in range(W)]
      response_BTF = self.filters[str(W)](jnp.concatenate(windows, axis=-1))
      seen = [padded_BT[:, i : i + count] for i in range(W)]
      seen_BT = jnp.any(jnp.stack(seen), axis=0)
      # After the ReLU nothing is below 0.
      response_BTF = jnp.where(seen_BT[:, :, None], nnx.relu(response_BTF), 0)
      found.append(response_BTF.max(axis=1))
    return jnp.concatenate(found, axis=-1)


def text_cnn(
  *,
  vocab_size: int,
  num_classes: int,
  dim: int = 128,
  widths: Sequence[int] = (3, 4, 5),
  filters: int = 100,
  word_dropout: float = 0.0,
  dropout: float = 0.5,
  dtype: str = "float32",
  param_dtype: str = "float32",
) -> Model:
  """Convolutions and max over time, tokens_BT -> logits_BC in float32.

  CNN-rand of Kim (EMNLP 2014, arXiv:1408.5882), without its bound on the norm
  of the last layer's weights. The method "features" returns x_BD, with D =
  filters x widths.

  Args:
    vocab_size: V.
    num_classes: C.
    dim: D of the word vectors.
    widths: of the windows, in tokens.
    filters: the number of filters of each width.
    word_dropout: the rate at which a word's entire vector is dropped.
    dropout: rate for the inputs of the last layer.
    dtype: of the computation.
    param_dtype: of the parameters.

  Raises:
    ValueError: widths are not positive and distinct, or a rate is outside [0,
      1).
  """
  widths = tuple(widths)
  if not widths or min(widths) < 1 or len(set(widths)) < len(widths):
    raise ValueError(f"widths = {widths} are not distinct positive numbers")
  for rate in (word_dropout, dropout):
    check_rate(rate)
  config = {
    "vocab_size": vocab_size,
    "num_classes": num_classes,
    "dim": dim,
    "widths": widths,
    "filters": filters,
    "word_dropout": word_dropout,
    "dropout": dropout,
    "dtype": float_dtype("dtype", dtype),
    "param_dtype": float_dtype("param_dtype", param_dtype),
  }
  return pure(lambda rngs: TextCNN(rngs=rngs, **config))


SHARDING = [
  (r"^(.*/)?embedding/embedding", P("tensor", None)),
  (r"filters/\d+/kernel", P(None, "tensor")),
]
