"""fastText's classifier: a linear one on the mean of a bag of vectors.

The shape legend stands in models/layers/basic.py; G is the grams of a row.
"""

import jax
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

# Of the hash: an odd number with bits all over, and fastText's own factor.
_SCATTER, _FACTOR = 2654435761, 116049371


class FastText(nnx.Module):
  """Tokens to logits; `fasttext` documents the arguments."""

  def __init__(
    self,
    *,
    vocab_size,
    num_classes,
    dim,
    ngrams,
    buckets,
    word_dropout,
    dropout,
    rngs,
    **common,
  ):
    self.vocab_size, self.ngrams, self.buckets = vocab_size, ngrams, buckets
    entries = vocab_size + (buckets if ngrams > 1 else 0)
    self.embedding = Embedding(entries, dim, rngs=rngs, **common)
    self.word_dropout = nnx.data(dropout_layer(word_dropout, rngs))
    self.dropout = nnx.data(dropout_layer(dropout, rngs))
    self.output = Dense(
      dim,
      num_classes,
      kernel_init=nnx.initializers.zeros,
      rngs=rngs,
      **common,
    )

  def __call__(self, tokens_BT, types_BT=None, segments_BT=None):
    """logits_BC, float32; see `features`."""
    x_BD = self.features(tokens_BT, types_BT, segments_BT)
    if self.dropout is not None:
      x_BD = self.dropout(x_BD)
    return self.output(x_BD).astype(jnp.float32)

  def features(self, tokens_BT, types_BT=None, segments_BT=None):
    """x_BD, the mean over a row's words and n-grams.

    Args:
      tokens_BT: int32.
      types_BT: not read; the order of two texts shows in what is between them.
      segments_BT: int32, 0 on padding; no n-gram reaches across two segments.
    """
    del types_BT
    if segments_BT is None:
      segments_BT = jnp.ones_like(tokens_BT)
    parts = grams(tokens_BT, segments_BT, self.ngrams, self.buckets)
    entries = [
      ids + (self.vocab_size if n else 0) for n, (ids, _) in enumerate(parts)
    ]
    entries_BG = jnp.concatenate(entries, axis=1)
    real_BG = jnp.concatenate([real for _, real in parts], axis=1)
    weight_BG = real_BG.astype(jnp.float32)
    if self.word_dropout is not None:
      weight_BG = self.word_dropout(weight_BG)
    # Of a row that has lost every word nothing is left: a vector of zeros.
    whole_B1 = jnp.maximum(weight_BG.sum(axis=1, keepdims=True), 1e-6)
    share_BG = weight_BG / whole_B1
    x_BGD = self.embedding(entries_BG)
    return jnp.einsum("BG,BGD->BD", share_BG.astype(x_BGD.dtype), x_BGD)


def grams(
  tokens_BT: jax.Array, segments_BT: jax.Array, ngrams: int, buckets: int
) -> list[tuple[jax.Array, jax.Array]]:
  """[(ids, whether it is one)] of the words, the bigrams, …, [B, T - n + 1].

  The id of an n-gram of two words or more is a hash below `buckets`.
  """
  mixed_BT = tokens_BT.astype(jnp.uint32) * jnp.uint32(_SCATTER)
  found = [(tokens_BT, segments_BT > 0)]
  hash_BT = mixed_BT
  for n in range(1, min(ngrams, tokens_BT.shape[1])):
    hash_BT = hash_BT[:, :-1] * jnp.uint32(_FACTOR) + mixed_BT[:, n:]
    same_BT = (segments_BT[:, :-n] == segments_BT[:, n:]) & (
      segments_BT[:, n:] > 0
    )
    # The low bits of a product know little of the high ones.
    spread_BT = (hash_BT ^ (hash_BT >> 15)) % jnp.uint32(buckets)
    found.append((spread_BT.astype(jnp.int32), same_BT))
  return found


def fasttext(
  *,
  vocab_size: int,
  num_classes: int,
  dim: int = 32,
  ngrams: int = 2,
  buckets: int = 2**17,
  word_dropout: float = 0.0,
  dropout: float = 0.0,
  dtype: str = "float32",
  param_dtype: str = "float32",
) -> Model:
  """A bag of words and word n-grams, tokens_BT -> logits_BC in float32.

  fastText (Joulin et al., arXiv:1607.01759): n-grams share hashed vectors, and
  where the tokens are characters they are n-grams of characters. Its method
  "features" gives x_BD.

  Args:
    vocab_size: V.
    num_classes: C.
    dim: D.
    ngrams: the longest, in tokens; 1 for words alone.
    buckets: that n-grams of two tokens or more are hashed into.
    word_dropout: the rate at which a word or n-gram is left out of the mean, in
      training (Iyyer et al., ACL 2015).
    dropout: rate, of the mean's coordinates.
    dtype: of the computation.
    param_dtype: of the parameters.

  Raises:
    ValueError: ngrams or buckets below 1, or a rate outside [0, 1).
  """
  for name, value in (("ngrams", ngrams), ("buckets", buckets)):
    if value < 1:
      raise ValueError(f"{name} = {value} is below 1")
  for rate in (word_dropout, dropout):
    check_rate(rate)
  config = {
    "vocab_size": vocab_size,
    "num_classes": num_classes,
    "dim": dim,
    "ngrams": ngrams,
    "buckets": buckets,
    "word_dropout": word_dropout,
    "dropout": dropout,
    "dtype": float_dtype("dtype", dtype),
    "param_dtype": float_dtype("param_dtype", param_dtype),
  }
  return pure(lambda rngs: FastText(rngs=rngs, **config))


SHARDING = [(r"^(.*/)?embedding/embedding", P("tensor", None))]
