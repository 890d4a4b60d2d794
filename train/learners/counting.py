"""Counting: a step adds the batch to the model's counts, without gradients."""

import jax
import jax.numpy as jnp

from common.errors import UserError
from train import types


def counting(
  task: types.Task,
  optimizer: types.Optimizer,
  *,
  examples: int | None = None,
  total_steps: int | None = None,
  batch_size: int | None = None,
) -> types.Learner:
  """One pass over the examples, for models that count and have no parameters.

  A step reports the loss of the batch before it is counted, and keeps the
  model_state that the forward pass in training wrote, such as the counts of
  models/language/ngram.py. If those are sums, the result does not depend on the
  order of the batches, and one epoch is enough: what follows it is masked, so
  that nothing is counted twice. The metric `counted` is the share of the
  examples that have been counted.

  Args:
    task: has exactly one loss.
    optimizer: not used.
    examples: in one epoch; of the data by default.
    total_steps: of the run.
    batch_size: of the run.

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
    metrics = {}
    if examples:
      mask = batch["mask"]
      size = len(mask)
      # Steps before the epoch's end, so that no product overflows.
      left = examples - jnp.minimum(state.step, -(-examples // size)) * size
      new_B = jnp.arange(size) < left
      new_B = new_B.reshape(-1, *[1] * (mask.ndim - 1))
      batch = {**batch, "mask": mask * new_B.astype(mask.dtype)}
      done = jnp.clip(examples - left + size, 0, examples)
      metrics["counted"] = types.Mean(*map(jnp.float32, (done, examples)))
    context = types.Context(rng, state.step, train=True)
    mean, aux = loss_fn(state.variables, batch, context)
    variables = state.variables._replace(model_state=aux.model_state)
    new = state._replace(step=state.step + 1, variables=variables)
    return new, {"loss": mean, **aux.metrics, **metrics}

  note = _note(examples, total_steps, batch_size)
  return types.Learner(init, step, lambda state: state.variables, note=note)


def _note(
  examples: int | None, total_steps: int | None, batch_size: int | None
) -> str:
  """Returns a line with the share of the examples that the run counts."""
  if not (examples and total_steps and isinstance(batch_size, int)):
    return ""
  done, needed = (
    min(total_steps * batch_size, examples),
    -(-examples // batch_size),
  )
  said = (
    f"counting: {done:,} of the {examples:,} examples of the training data"
    f" ({100 * done / examples:.3g} %) in {total_steps:,} steps"
  )
  if total_steps == needed:
    return said
  what = "all of them" if total_steps < needed else "each of them once"
  return f"{said}; config.total_steps={needed} counts {what}"
