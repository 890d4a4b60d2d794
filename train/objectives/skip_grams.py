"""The samples of word2vec: kept words, their contexts, and noise words.

Shapes: B rows, T words of a row, S the same words as contexts, K noise words,
V vocabulary.
"""

import jax
import jax.numpy as jnp
import numpy as np


def chances(
  counts_V: np.ndarray, power: float, subsample: float
) -> tuple[np.ndarray, np.ndarray]:
  """Returns sampling probabilities (Mikolov et al., arXiv:1310.4546).

  Args:
    counts_V: the number of occurrences of each word, integers.
    power: the exponent of the frequency in the noise distribution.
    subsample: the frequency above which words are subsampled; 0 keeps all.

  Returns:
    (stay_V, sums_V), float32 [V] each: the probability
    min(1, sqrt(subsample / frequency)) that an occurrence of a word is kept,
    and the cumulative noise distribution, which is proportional to
    frequency ^ power. Words of count 0 are neither kept nor drawn as noise.
  """
  share_V = counts_V / counts_V.sum()
  stay_V = np.ones(len(share_V))
  if subsample:
    often_V = np.maximum(share_V, 1e-300)
    stay_V = np.minimum(np.sqrt(subsample / often_V), 1)
  sums_V = np.cumsum(np.where(counts_V > 0, share_V**power, 0))
  stay_V = np.where(counts_V > 0, stay_V, 0)
  return stay_V.astype(np.float32), (sums_V / sums_V[-1]).astype(np.float32)


def words(batch, stay_V: jax.Array, rng: jax.Array):
  """Returns (tokens_BT, documents_BT) of the kept words, moved to the front.

  Documents are numbered from 1; 0 is padding.

  Args:
    batch: inputs [B, T], mask [B, T] and, in packed rows, segments [B, T].
    stay_V: the probability that an occurrence is kept.
    rng: a random key.
  """
  tokens_BT, mask_BT = batch["inputs"], batch["mask"]
  documents_BT = batch.get("segments", jnp.ones_like(tokens_BT))
  draw_BT = jax.random.uniform(rng, tokens_BT.shape)
  stays_BT = (draw_BT < stay_V[tokens_BT]) & (mask_BT > 0)
  order_BT = jnp.argsort(~stays_BT, axis=1, stable=True)
  documents_BT = jnp.where(stays_BT, documents_BT, 0)
  return tuple(
    jnp.take_along_axis(each, order_BT, axis=1)
    for each in (tokens_BT, documents_BT)
  )


def pairs(documents_BT: jax.Array, window: int, rng: jax.Array) -> jax.Array:
  """Returns whether s is a context of t, bool [B, T, S].

  A context is in the same document as t, within a distance that is drawn
  uniformly from 1 … window for each t.
  """
  T = documents_BT.shape[1]
  reach_BT = jax.random.randint(rng, documents_BT.shape, 1, window + 1)
  distance_TS = jnp.abs(jnp.arange(T)[:, None] - jnp.arange(T)[None])[None]
  near_BTS = (distance_TS > 0) & (distance_TS <= reach_BT[:, :, None])
  same_BTS = documents_BT[:, :, None] == documents_BT[:, None]
  return near_BTS & same_BTS & (documents_BT[:, :, None] > 0)


def noise(
  sums_V: jax.Array, rows: int, count: int, rng: jax.Array
) -> jax.Array:
  """Returns `count` noise words for each of `rows` rows, int32 [B, K]."""
  draw_BK = jax.random.uniform(rng, (rows, count))
  return jnp.searchsorted(sums_V, draw_BK, side="right")
