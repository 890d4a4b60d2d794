"""GloVe: word vectors whose products are logarithms of co-occurrence counts."""

import jax
import jax.numpy as jnp

from models import Model
from train import types


def glove(
  model: Model,
  *,
  counts: jax.Array | None = None,
  x_max: float = 100.0,
  alpha: float = 0.75,
) -> types.Task:
  """Weighted least squares (Pennington et al., EMNLP 2014, equation 8).

    f(X_ij) (w_i w~_j + b_i + b~_j - log X_ij)^2,  f(x) = min(1, (x / x_max)^a)

  averaged over the entries X_ij of the batch. The vector of a word is w + w~.

  Batch, from rows "cooccurrence": word, context [B, T] int32, count [B, T]
  float, mask [B, T].

  Args:
    model: a models.language.word_vectors with bias=True.
    counts: int [V], the tokenizer's counts of the words; a word of count 0 is
      left out.
    x_max: the count above which all entries have the same weight. The paper's
      value of 100 is for billions of words.
    alpha: the exponent a.

  Raises:
    ValueError: x_max or alpha is not positive.
  """
  if not (x_max > 0 and alpha > 0):
    raise ValueError(f"x_max={x_max} and alpha={alpha} must be positive")

  def init(rng, batch):
    del batch
    return types.Variables(*model.init(rng))

  def loss(variables, batch, context):
    del context
    score_BT, model_state = model.apply(
      variables.params,
      variables.model_state,
      batch["word"],
      batch["context"],
    )
    # Padding has the count 0, whose logarithm is not finite.
    count_BT = jnp.where(batch["mask"] > 0, batch["count"], 1)
    weight_BT = jnp.minimum(count_BT / x_max, 1) ** alpha
    error_BT = weight_BT * (score_BT - jnp.log(count_BT)) ** 2
    mean = types.mean_of(error_BT, batch["mask"])
    return mean, types.Aux(model_state, {})

  def vectors(variables, batch, rng):
    """Returns w + w~ of all words, and whether each was learned."""
    del batch, rng
    params, state = variables.params, variables.model_state
    w_VD, other_VD = model.apply(params, state, method="tables")[0]
    known_V = jnp.ones(len(w_VD), bool)
    if counts is not None:
      known_V = jnp.asarray(counts > 0)
    return {"vectors": w_VD + other_VD, "known": known_V}

  return types.Task(init, {"loss": loss}, {"vectors": vectors})
