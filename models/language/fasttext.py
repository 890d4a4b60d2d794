"""fastText's classifier: a linear layer on the mean of a bag of vectors.

The shape legend is in models/layers/basic.py; G counts the n-grams of a row.
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

# The hash's offset, an odd number with spread bits, and fastText's factor.
_SCATTER, _FACTOR = 2654435761, 116049371


class FastText(nnx.Module):
  """Maps tokens to logits; `fasttext` documents the arguments."""

  def __init__(
    self,
    *,
    vocab_size,
    num_classes,
    dim,
    ngrams,
    buckets,
    kinds,
    word_dropout,
    dropout,
    rngs,
    **common,
  ):
    self.vocab_size, self.ngrams, self.buckets = vocab_size, ngrams, buckets
    self.kinds = kinds
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
    """Returns logits_BC, float32; see `features`."""
    x_BD = self.features(tokens_BT, types_BT, segments_BT)
    if self.dropout is not None:
      x_BD = self.dropout(x_BD)
    return self.output(x_BD).astype(jnp.float32)

  def features(self, tokens_BT, types_BT=None, segments_BT=None):
    """Returns x_BD, the mean over a row's words and n-grams.

    Args:
      tokens_BT: int32.
      types_BT: ignored; the separator between two texts shows their order.
      segments_BT: int32, 0 on padding; no n-gram spans two segments. With
        several kinds it is the kind of a token, from 1 on.
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
    if self.kinds == 1:
      share_BG = _shares(weight_BG)
    else:
      kind_BG = segments_BT  # ngrams is 1
      share_BG = sum(
        _shares(weight_BG * (kind_BG == kind))
        for kind in range(1, self.kinds + 1)
      )
    x_BGD = self.embedding(entries_BG)
    return jnp.einsum("BG,BGD->BD", share_BG.astype(x_BGD.dtype), x_BGD)


def _shares(weight_BG: jax.Array) -> jax.Array:
  """Returns each entry's share of its row; zeros if all entries are lost."""
  return weight_BG / jnp.maximum(weight_BG.sum(axis=1, keepdims=True), 1e-6)


def grams(
  tokens_BT: jax.Array, segments_BT: jax.Array, ngrams: int, buckets: int
) -> list[tuple[jax.Array, jax.Array]]:
  """Returns [(ids, whether valid)] of words, bigrams, …, each [B, T - n + 1].

  The id of an n-gram of two or more words is a hash below `buckets`.
  """
  mixed_BT = tokens_BT.astype(jnp.uint32) * jnp.uint32(_SCATTER)
  found = [(tokens_BT, segments_BT > 0)]
  hash_BT = mixed_BT
  for n in range(1, min(ngrams, tokens_BT.shape[1])):
    hash_BT = hash_BT[:, :-1] * jnp.uint32(_FACTOR) + mixed_BT[:, n:]
    same_BT = (segments_BT[:, :-n] == segments_BT[:, n:]) & (
      segments_BT[:, n:] > 0
    )
    # The low bits of a product depend little on the high bits of its factors.
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
  kinds: int = 1,
  word_dropout: float = 0.0,
  dropout: float = 0.0,
  dtype: str = "float32",
  param_dtype: str = "float32",
) -> Model:
  """A bag of words and word n-grams, tokens_BT -> logits_BC in float32.

  fastText (Joulin et al., arXiv:1607.01759): n-grams share hashed vectors; if
  the tokens are characters, they are n-grams of characters. The method
  "features" returns x_BD.

  Args:
    vocab_size: V.
    num_classes: C.
    dim: D.
    ngrams: the longest n-grams, in tokens; 1 for words alone.
    buckets: the number of hash buckets for n-grams of two or more tokens.
    kinds: of tokens, each of which has a mean of its own; the means are added.
      With the rows `bag_of_ngrams` it is 2, words and characters, or 4 for
      pairs of texts: many n-grams of characters then do not outvote the words.
    word_dropout: the rate at which a word or n-gram is left out of the mean, in
      training (Iyyer et al., ACL 2015).
    dropout: rate for the mean's coordinates.
    dtype: of the computation.
    param_dtype: of the parameters.

  Raises:
    ValueError: ngrams, buckets or kinds is below 1, a rate is outside [0, 1),
      or there are several kinds with n-grams of tokens.
  """
  for name, value in (
    ("ngrams", ngrams),
    ("buckets", buckets),
    ("kinds", kinds),
  ):
    if value < 1:
      raise ValueError(f"{name} = {value} is below 1")
  if kinds > 1 and ngrams > 1:
    raise ValueError(
      f"kinds = {kinds} counts n-grams made by the rows: set ngrams = 1, not"
      f" {ngrams}"
    )
  for rate in (word_dropout, dropout):
    check_rate(rate)
  config = {
    "vocab_size": vocab_size,
    "num_classes": num_classes,
    "dim": dim,
    "ngrams": ngrams,
    "buckets": buckets,
    "kinds": kinds,
    "word_dropout": word_dropout,
    "dropout": dropout,
    "dtype": float_dtype("dtype", dtype),
    "param_dtype": float_dtype("param_dtype", param_dtype),
  }
  return pure(lambda rngs: FastText(rngs=rngs, **config))


SHARDING = [(r"^(.*/)?embedding/embedding", P("tensor", None))]
