"""A tagger: labels each word from the words around it.

The shape legend is in models/layers/basic.py; here F counts features of a word.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import PartitionSpec as P

from models import Model, pure
from models.layers import separable
from models.layers.basic import Dense, Embedding, dropout_layer, float_dtype

# Of a neighbour: its lower case, its two shapes and its kind.
_NEIGHBOUR = slice(1, 5)
_FACTOR, _SCATTER = np.uint32(2654435761), np.uint32(2246822519)


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
    linear_window,
    **common,
  ):
    rngs = common["rngs"]
    self.linear = nnx.data(None)
    if linear_window is not None:
      self.linear = Linear(
        vocab_size, num_classes, linear_window, feature_dropout, **common
      )
    self.dim = dim
    if not dim:
      return
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
    logits_BTC = 0.0
    if self.dim:
      logits_BTC = self.head(self.features(tokens, segments_BT))
    if self.linear is not None:
      logits_BTC += self.linear(tokens, segments_BT)
    return logits_BTC.astype("float32")

  def features(self, tokens, segments_BT=None):
    """Returns x_BTD, the input of the head.

    Raises:
      ValueError: dim is None.
    """
    if not self.dim:
      raise ValueError("a tagger with dim = None has no features")
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


class Linear(nnx.Module):
  """A linear classifier of the hashed features of a word and its neighbours.

  The features of the word itself all count; of a neighbour those that
  `word_features` puts in places 1 to 4 do: its lower case, its two shapes and
  its kind. Beyond the sentence there is a feature "no word". A neighbour's
  features are hashed with its distance into the same table, [V, C].
  """

  def __init__(self, entries, classes, reach, dropout, *, rngs, **common):
    self.entries, self.reach = entries, reach
    self.table = Embedding(entries, classes, std=0.0, rngs=rngs, **common)
    self.forget = nnx.data(dropout_layer(dropout, rngs))

  def __call__(self, tokens_BTF, segments_BT=None):
    """Returns logits_BTC."""
    B, T, _ = tokens_BTF.shape
    if segments_BT is not None:
      tokens_BTF = tokens_BTF * (segments_BT > 0)[..., None]
    entries, weights = [tokens_BTF], [tokens_BTF > 0]
    near_BTF = jnp.pad(
      tokens_BTF[..., _NEIGHBOUR], ((0, 0), (self.reach, self.reach), (0, 0))
    )
    for j in range(2 * self.reach + 1):
      if j == self.reach:
        continue
      moved_BTF = near_BTF[:, j : j + T]
      hash_BTF = moved_BTF.astype(jnp.uint32) * _FACTOR + jnp.uint32(j + 1)
      hash_BTF = (hash_BTF ^ (hash_BTF >> 15)) * _SCATTER
      hash_BTF = (hash_BTF ^ (hash_BTF >> 13)) % jnp.uint32(self.entries)
      entries.append(hash_BTF.astype(jnp.int32))
      # Its lower case is never missing, except where there is no word.
      weights.append((moved_BTF > 0).at[..., 0].set(True))
    entries_BTF = jnp.concatenate(entries, axis=-1)
    weight_BTF = jnp.concatenate(weights, axis=-1).astype(jnp.float32)
    if self.forget is not None:
      weight_BTF = self.forget(weight_BTF)
    found = self.table(entries_BTF.reshape(B, -1))
    found = found.reshape(*entries_BTF.shape, -1)
    return jnp.einsum("BTF,BTFC->BTC", weight_BTF.astype(found.dtype), found)


def tagger(
  *,
  vocab_size: int,
  num_classes: int,
  dim: int | None = 128,
  dilations: Sequence[int] = (1, 2, 4),
  width: int = 3,
  dropout: float = 0.5,
  feature_dropout: float = 0.0,
  linear_window: int | None = None,
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
    dim: D; None for the linear classifier alone.
    dilations: of each block.
    width: the number of positions in a convolution's kernel; odd.
    dropout: rate for the words' vectors and for the outputs of the blocks.
    feature_dropout: rate at which a feature of a hashed word is dropped; a rare
      word is then recognized by its shape and its parts.
    linear_window: the number of words to each side whose hashed features, with
      the word's own, a linear classifier reads, as in a conditional random
      field with the features of CRFsuite's tutorial; its logits are added. None
      for no such classifier.
    dtype: of the computation.
    param_dtype: of the parameters.

  Raises:
    ValueError: the width is even, there is no dilation, a rate is outside [0,
      1), a dtype is unknown, or dim is None without a linear classifier.
  """
  if linear_window is not None and linear_window < 0:
    raise ValueError(f"linear_window = {linear_window} is below 0")
  if dim is None and linear_window is None:
    raise ValueError("dim = None without linear_window leaves no classifier")
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
    "linear_window": linear_window,
    "dtype": float_dtype("dtype", dtype),
    "param_dtype": float_dtype("param_dtype", param_dtype),
  }
  return pure(lambda rngs: Tagger(rngs=rngs, **config))


SHARDING = [
  (r"(token_embedding|table)/embedding", P("tensor", None)),
]
