"""Knowledge graphs: facts as triples of a head, a relation and a tail."""

import jax
import jax.numpy as jnp

from models import Model
from train import types


def _margin(difference, positive, negative, margin):
  del positive, negative
  return jnp.maximum(0, margin - difference)


def _logistic(difference, positive, negative, margin):
  del difference, margin
  return jax.nn.softplus(-positive) + jax.nn.softplus(negative)


LOSSES = {"margin": _margin, "logistic": _logistic}


def triples(
  model: Model,
  *,
  entities: int,
  negatives: int = 1,
  loss: str = "margin",
  margin: float = 1.0,
) -> types.Task:
  """Ranks the triples of the data above corrupted ones.

  A corrupted triple has another entity, drawn uniformly with the random key of
  the step, as its head or its tail, with equal probability (Bordes et al.,
  NeurIPS 2013). With scores s and s' of a triple and its corruption, the loss
  "margin" is max(0, margin - s + s'), and "logistic" is
  log(1 + exp(-s)) + log(1 + exp(s')), both averaged over triples and
  corruptions. The metric "ranked" is the share of corruptions with s > s'.

  Batch, from rows "triples": head, relation, tail [B] int32; mask [B].

  Args:
    model: (head, relation, tail) -> scores, with the methods "tails" and
      "heads"; see models/graphs/transe.py.
    entities: the number of entities.
    negatives: the number of corruptions of each triple.
    loss: "margin" or "logistic".
    margin: of the loss "margin".

  Raises:
    ValueError: `loss` is unknown, or `negatives` or `margin` is not positive.
  """
  if loss not in LOSSES:
    raise ValueError(f"loss={loss!r}; valid: {', '.join(LOSSES)}")
  if not (isinstance(negatives, int) and negatives > 0 and margin > 0):
    raise ValueError(
      f"negatives={negatives!r} and margin={margin!r} must be positive"
    )

  def apply(variables, *ids, **how):
    return model.apply(variables.params, variables.model_state, *ids, **how)

  def ranking(variables, batch, context):
    head_B1, relation_B1, tail_B1 = (
      batch[name][:, None] for name in ("head", "relation", "tail")
    )
    shape = (len(head_B1), negatives)
    other_rng, side_rng = jax.random.split(context.rng)
    other_BK = jax.random.randint(other_rng, shape, 0, entities)
    is_head_BK = jax.random.bernoulli(side_rng, shape=shape)
    positive_B1, _ = apply(variables, head_B1, relation_B1, tail_B1)
    negative_BK, state = apply(
      variables,
      jnp.where(is_head_BK, other_BK, head_B1),
      relation_B1,
      jnp.where(is_head_BK, tail_B1, other_BK),
    )
    difference_BK = positive_B1 - negative_BK
    loss_BK = LOSSES[loss](difference_BK, positive_B1, negative_BK, margin)
    ranked = types.mean_of(difference_BK > 0, batch["mask"])
    return types.mean_of(loss_BK, batch["mask"]), types.Aux(
      state, {"ranked": ranked}
    )

  def tails(variables, batch, rng):
    del rng
    ids = batch["head"], batch["relation"]
    return apply(variables, *ids, method="tails")[0]

  def heads(variables, batch, rng):
    del rng
    ids = batch["relation"], batch["tail"]
    return apply(variables, *ids, method="heads")[0]

  return types.Task(
    types.init_of(model), {"loss": ranking}, {"tails": tails, "heads": heads}
  )
