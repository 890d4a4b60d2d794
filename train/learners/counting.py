"""Counting: a step adds what it sees to the model's state; no gradients."""

import jax
import jax.numpy as jnp

from common.errors import UserError
from train import types


def counting(task: types.Task, optimizer: types.Optimizer) -> types.Learner:
  """Learning by one look at each example, for models without parameters.

  A step takes the loss of the batch as it stood before, and keeps the
  model_state that the forward pass in training wrote: the counts of
  models/language/ngram.py, say. Where those are sums, no order of the batches
  changes what is learned, and one epoch is all there is to it.

  Args:
    task: has exactly one loss.
    optimizer: not used: there is nothing to descend.

  Raises:
    ValueError: the task has several losses.
    UserError: from `init`, the model has parameters, or has nothing to count
      in.
  """
  del optimizer
  if len(task.losses) != 1:
    raise ValueError(
      f"counting takes one loss; this task has {sorted(task.losses)}"
    )
  (loss_fn,) = task.losses.values()

  def init(rng, batch):
    variables = task.init(rng, batch)
    if jax.tree.leaves(variables.params):
      raise UserError(
        "config.learner.name=counting: the model has parameters, which counting"
        " does not learn; it is for models such as ngram"
      )
    if not jax.tree.leaves(variables.model_state):
      raise UserError(
        "config.learner.name=counting: the model keeps no counts; it is for"
        " models such as ngram"
      )
    return types.State(jnp.zeros((), jnp.int32), variables, (), {})

  def step(state, batch, rng):
    mean, aux = loss_fn(state.variables, batch, rng, True)
    variables = state.variables._replace(model_state=aux.model_state)
    new = state._replace(step=state.step + 1, variables=variables)
    return new, {"loss": mean, **aux.metrics}

  return types.Learner(init, step, lambda state: state.variables)
