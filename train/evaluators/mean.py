"""The losses and metrics of the task, averaged over a split."""

import jax
import numpy as np

from train import types


def mean(context: types.EvalContext) -> types.Evaluator:
  """Averages every loss and metric, without the noise of training.

  A single loss is called "loss"; several are called "<player>_loss". Sums are
  merged over batches, so that each real token or example has the same weight.
  """
  losses = context.task.losses

  @jax.jit
  def sums(variables, batch, at):
    found = {}
    for player, loss in losses.items():
      total, aux = loss(variables, batch, at)
      name = "loss" if len(losses) == 1 else f"{player}_loss"
      found |= {name: total, **aux.metrics}
    return found

  def evaluate(variables, step):
    merged = None
    for i, batch in enumerate(context.batches()):
      rng = jax.random.fold_in(context.rng, i)
      at = types.Context(rng, np.int32(step), train=False)
      found = context.fetch(sums(variables, batch, at))
      merged = found if merged is None else add(merged, found)
    return {name: float(m.value()) for name, m in merged.items()}

  def names(variables):
    at = types.Context(context.rng, np.int32(0), train=False)
    return jax.eval_shape(sums, variables, context.abstract_batch, at)

  return types.Measuring(evaluate, names)


def add(a: dict[str, types.Mean], b: dict[str, types.Mean]):
  """Merges two dicts of Means."""
  return {name: a[name] + b[name] for name in a}
