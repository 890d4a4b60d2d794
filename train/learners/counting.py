"""Counting: a step adds the batch to the model's counts, without gradients."""

import jax
import jax.numpy as jnp

from common.errors import UserError
from train import types


def counting(task: types.Task, optimizer: types.Optimizer) -> types.Learner:
  """One pass over the examples, for models that count and have no parameters.

  A step reports the loss of the batch before it is counted, and keeps the
  model_state that the forward pass in training wrote, such as the counts of
  models/language/ngram.py. If those are sums, the result does not depend on the
  order of the batches, and one epoch is enough.

  Args:
    task: has exactly one loss.
    optimizer: not used.

  Raises:
    ValueError: the task has several losses.
    UserError: from `init`, the model has parameters, or has no counts.
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
        " does not learn; use it for models such as ngram"
      )
    if not jax.tree.leaves(variables.model_state):
      raise UserError(
        "config.learner.name=counting: the model has no counts; use it for"
        " models such as ngram"
      )
    return types.State(jnp.zeros((), jnp.int32), variables, (), {})

  def step(state, batch, rng):
    mean, aux = loss_fn(state.variables, batch, rng, True)
    variables = state.variables._replace(model_state=aux.model_state)
    new = state._replace(step=state.step + 1, variables=variables)
    return new, {"loss": mean, **aux.metrics}

  return types.Learner(init, step, lambda state: state.variables)
