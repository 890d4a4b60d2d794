"""word2vec: word vectors that separate the words of a context from noise.

Shapes: B rows, T words of a row, S the same words as contexts, K words of
noise, D features, V vocabulary.
"""

import jax
import jax.numpy as jnp
import numpy as np

from models import Model
from train import types
from train.objectives import skip_grams

ARCHITECTURES = ("skip_gram", "cbow")


def word2vec(
  model: Model,
  *,
  counts: np.ndarray | None = None,
  architecture: str = "skip_gram",
  window: int = 5,
  negatives: int = 5,
  noise: int = 64,
  power: float = 0.75,
  subsample: float = 1e-3,
) -> types.Task:
  """Skip-gram or CBOW with negative sampling (arXiv:1310.4546, 1301.3781).

  Batch: inputs [B, T] int32, mask [B, T]; segments [B, T] in packed rows, whose
  contexts then do not cross documents. All samples are drawn with the
  rng of the step: a word is kept with probability sqrt(subsample / frequency),
  gaps are closed, and the contexts of each word lie within a distance that is
  drawn uniformly from 1 … window. For a word w and its context c, the loss of
  skip-gram is

    -log s(x_w y_c) - sum over `negatives` words n of noise of log s(-x_w y_n)

  averaged over pairs. CBOW replaces x_w by the mean of x over the contexts and
  y_c by y_w, and averages over words. Noise is drawn by frequency ^ power. All
  words of a row share its `noise` words, each with the weight negatives /
  noise: the expected loss is the same, computed by a matrix product.

  Args:
    model: a models.language.word_vectors.
    counts: int [V], the tokenizer's counts of the words; a word of count 0 is
      left out.
    architecture: "skip_gram" or "cbow".
    window: largest distance of a context, in words.
    negatives: expected number of noise words per pair.
    noise: K, the number of noise words drawn for each row.
    power: exponent of the frequency that noise is drawn by.
    subsample: frequency above which words are dropped at random; 0 drops none.

  Raises:
    ValueError: the tokenizer has no counts, or a value is out of range.
  """
  if counts is None:
    raise ValueError('no counts of words: set config.data.tokenizer to "word"')
  if architecture not in ARCHITECTURES:
    raise ValueError(
      f"architecture={architecture!r} is none of {ARCHITECTURES}"
    )
  if min(window, negatives, noise) < 1 or subsample < 0:
    raise ValueError(
      "window, negatives and noise must be at least 1, and subsample at least 0"
    )
  stay_V, noise_V = skip_grams.chances(counts, power, subsample)

  def init(rng, batch):
    del batch
    frozen = {"stay": jnp.asarray(stay_V), "noise": jnp.asarray(noise_V)}
    return types.Variables(*model.init(rng), frozen)

  def loss(variables, batch, context):
    frozen, keys = variables.frozen, jax.random.split(context.rng, 3)

    def vectors(ids, method):
      return model.apply(
        variables.params, variables.model_state, ids, method=method
      )[0]

    tokens_BT, documents_BT = skip_grams.words(batch, frozen["stay"], keys[0])
    pair_BTS = skip_grams.pairs(documents_BT, window, keys[1])
    noise_BK = skip_grams.noise(frozen["noise"], len(tokens_BT), noise, keys[2])
    x_BTD = vectors(tokens_BT, "inputs")
    y_BTD, n_BKD = (vectors(ids, "outputs") for ids in (tokens_BT, noise_BK))
    pairs_BT = jnp.sum(pair_BTS, 2, jnp.float32)
    if architecture == "skip_gram":
      weight_BT = pairs_BT
      positive_BTS = jax.nn.softplus(-jnp.einsum("btd,bsd->bts", x_BTD, y_BTD))
      positive = jnp.sum(jnp.where(pair_BTS, positive_BTS, 0))
    else:
      weight_BT = (pairs_BT > 0).astype(jnp.float32)
      share_BTS = pair_BTS / jnp.maximum(pairs_BT, 1)[:, :, None]
      x_BTD = jnp.einsum("bts,bsd->btd", share_BTS, x_BTD)
      positive_BT = jax.nn.softplus(-jnp.sum(x_BTD * y_BTD, -1))
      positive = jnp.sum(weight_BT * positive_BT)
    negative_BTK = jax.nn.softplus(jnp.einsum("btd,bkd->btk", x_BTD, n_BKD))
    total = positive + negatives / noise * jnp.sum(
      weight_BT * negative_BTK.sum(2)
    )
    mean = types.Mean(total, jnp.sum(weight_BT))
    return mean, types.Aux(variables.model_state, {})

  def vectors(variables, batch, rng):
    """Returns the input vectors of all words, and whether each was learned."""
    del batch, rng
    params, state = variables.params, variables.model_state
    input_VD, _ = model.apply(params, state, method="tables")[0]
    return {"vectors": input_VD, "known": variables.frozen["stay"] > 0}

  return types.Task(init, {"loss": loss}, {"vectors": vectors})
