"""word2vec: words told from noise by the words around them.

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
  documents are then no context of one another. What word2vec draws is drawn
  from the step's rng: a word stays with probability sqrt(subsample / its
  frequency), those that stay close up, and each has contexts up to a distance
  uniform in 1 … window. Of a word w and its context c, skip-gram's loss is

    -log s(x_w y_c) - sum over `negatives` words n of noise of log s(-x_w y_n)

  averaged over pairs; CBOW has the mean of x over the contexts in the place of
  x_w, y_w in that of y_c, and is averaged over words. Noise is of frequency ^
  power. The `noise` words drawn for a row serve all its words, each with the
  weight negatives / noise: the same loss in expectation, by a matrix product.

  Args:
    model: of models.language.word_vectors.
    counts: int [V], occurrences of each word, 0 for one that takes no part;
      those of the tokenizer.
    architecture: "skip_gram" or "cbow".
    window: the farthest context, in words.
    negatives: words of noise a pair, in expectation.
    noise: K, words of noise that are drawn for each row.
    power: of the frequency that noise is drawn by.
    subsample: the frequency above which words are left out; 0: none is.

  Raises:
    ValueError: the tokenizer has no counts, or a value is out of range.
  """
  if counts is None:
    raise ValueError('no counts of words: set config.data.tokenizer to "word"')
  if architecture not in ARCHITECTURES:
    raise ValueError(f"architecture={architecture!r} is not of {ARCHITECTURES}")
  if min(window, negatives, noise) < 1 or subsample < 0:
    raise ValueError("window, negatives or noise is below 1, or subsample 0")
  stay_V, noise_V = skip_grams.chances(counts, power, subsample)

  def init(rng, batch):
    del batch
    frozen = {"stay": jnp.asarray(stay_V), "noise": jnp.asarray(noise_V)}
    return types.Variables(*model.init(rng), frozen)

  def loss(variables, batch, rng, train):
    del train
    frozen, keys = variables.frozen, jax.random.split(rng, 3)

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
      told_BTS = jax.nn.softplus(-jnp.einsum("btd,bsd->bts", x_BTD, y_BTD))
      told = jnp.sum(jnp.where(pair_BTS, told_BTS, 0))
    else:
      weight_BT = (pairs_BT > 0).astype(jnp.float32)
      share_BTS = pair_BTS / jnp.maximum(pairs_BT, 1)[:, :, None]
      x_BTD = jnp.einsum("bts,bsd->btd", share_BTS, x_BTD)
      told_BT = jax.nn.softplus(-jnp.sum(x_BTD * y_BTD, -1))
      told = jnp.sum(weight_BT * told_BT)
    against_BTK = jax.nn.softplus(jnp.einsum("btd,bkd->btk", x_BTD, n_BKD))
    total = told + negatives / noise * jnp.sum(weight_BT * against_BTK.sum(2))
    mean = types.Mean(total, jnp.sum(weight_BT))
    return mean, types.Aux(variables.model_state, {})

  def vectors(variables, batch, rng):
    """The input vectors of all words, and which of them took part."""
    del batch, rng
    params, state = variables.params, variables.model_state
    input_VD, _ = model.apply(params, state, method="tables")[0]
    return {"vectors": input_VD, "known": variables.frozen["stay"] > 0}

  return types.Task(init, {"loss": loss}, {"vectors": vectors})
