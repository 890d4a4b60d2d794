"""The losses and metrics of the task, averaged over a split."""

import jax

from train import types


def mean(context: types.EvalContext) -> types.Evaluator:
  """Averages every loss and metric, without the noise of training.

  A single loss is called "loss"; several are called "<player>_loss". Sums are
  merged over batches, so that each real token or example has the same weight.
  """
  losses = context.task.losses

  @jax.jit
  def sums(variables, batch, rng):
    found = {}
    for player, loss in losses.items():
      total, aux = loss(variables, batch, rng, False)
      name = "loss" if len(losses) == 1 else f"{player}_loss"
      found |= {name: total, **aux.metrics}
    return found

  def evaluate(variables, step):
    del step
    merged = None
    for i, batch in enumerate(context.batches()):
      rng = jax.random.fold_in(context.rng, i)
      found = context.fetch(sums(variables, batch, rng))
      merged = found if merged is None else add(merged, found)
    return {name: float(m.value()) for name, m in merged.items()}

  def names(variables):
    return jax.eval_shape(sums, variables, context.abstract_batch, context.rng)

  return types.Measuring(evaluate, names)


def add(a: dict[str, types.Mean], b: dict[str, types.Mean]):
  """Merges two dicts of Means."""
  return {name: a[name] + b[name] for name in a}
