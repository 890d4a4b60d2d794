"""Supervised learning: one loss, one optimizer, every parameter."""

import jax
import jax.numpy as jnp
import optax

from train import types


def supervised(
  task: types.Task,
  optimizer: types.Optimizer,
  *,
  microbatches: int = 1,
  ema: float = 0.0,
) -> types.Learner:
  """Gradient descent on the single loss of `task`.

  Gradients are sum(grad) / sum(weight) over the whole batch, so that neither
  the number of microbatches nor a ragged mask changes the update.

  Args:
    task: has exactly one loss.
    optimizer: what turns gradients into updates.
    microbatches: the batch is cut in so many parts, one after another, to save
      memory. Must divide the batch size.
    ema: decay of the moving average of params that is evaluated and exported,
      `e <- ema * e + (1 - ema) * params` after every update; 0 keeps none.

  Raises:
    ValueError: the task has several losses, or a value is out of range.
  """
  if len(task.losses) != 1:
    raise ValueError(
      f"supervised learns one loss; this task has {sorted(task.losses)}"
    )
  if microbatches < 1 or not 0 <= ema < 1:
    raise ValueError(f"microbatches={microbatches} < 1 or ema={ema} not in 0…1")
  (loss_fn,) = task.losses.values()

  def init(rng, batch):
    variables = task.init(rng, batch)
    return types.State(
      step=jnp.zeros((), jnp.int32),
      variables=variables,
      opt_state=optimizer.init(variables.params),
      # A copy: the step donates its buffers, and one buffer is given once.
      extra={"ema": jax.tree.map(jnp.copy, variables.params)} if ema else {},
    )

  def gradients(variables, batch, rng):
    """(sum of gradients, Mean of the loss, Aux) of one microbatch."""

    def total(params):
      mean, aux = loss_fn(variables._replace(params=params), batch, rng, True)
      return mean.total, (mean, aux)

    grads, (mean, aux) = jax.grad(total, has_aux=True)(variables.params)
    return grads, mean, aux

  def accumulate(variables, batch, rng):
    if microbatches == 1:
      return gradients(variables, batch, rng)
    parts = types.split(batch, microbatches)

    def body(carry, part_and_index):
      part, i = part_and_index
      model_state, sums = carry
      grads, mean, aux = gradients(
        variables._replace(model_state=model_state),
        part,
        jax.random.fold_in(rng, i),
      )
      sums = jax.tree.map(jnp.add, sums, (grads, mean, aux.metrics))
      return (aux.model_state, sums), None

    first = jax.tree.map(lambda x: x[0], parts)
    shapes = jax.eval_shape(gradients, variables, first, rng)
    zeros = jax.tree.map(
      lambda x: jnp.zeros(x.shape, x.dtype),
      (shapes[0], shapes[1], shapes[2].metrics),
    )
    (model_state, (grads, mean, metrics)), _ = jax.lax.scan(
      body,
      (variables.model_state, zeros),
      (parts, jnp.arange(microbatches)),
    )
    return grads, mean, types.Aux(model_state, metrics)

  def step(state, batch, rng):
    variables = state.variables
    grads, mean, aux = accumulate(variables, batch, rng)
    weight = jnp.where(mean.weight == 0, 1, mean.weight)
    grads = jax.tree.map(lambda g: (g / weight).astype(g.dtype), grads)
    updates, opt_state = optimizer.update(
      grads, state.opt_state, variables.params, mean.value()
    )
    params = optax.apply_updates(variables.params, updates)
    extra = state.extra
    if ema:
      extra = {"ema": optax.incremental_update(params, extra["ema"], 1 - ema)}
    metrics = {
      "loss": mean,
      **aux.metrics,
      "grad_norm": types.mean_of(optax.tree.norm(grads)),
      # Not finite after an update that went wrong: told before it is saved.
      "param_norm": types.mean_of(optax.tree.norm(params)),
      "learning_rate": types.mean_of(optimizer.learning_rate(state.opt_state)),
    }
    variables = types.Variables(params, aux.model_state, variables.frozen)
    return types.State(state.step + 1, variables, opt_state, extra), metrics

  def evaluated(state):
    params = state.extra["ema"] if ema else state.variables.params
    if not ema:
      params = optimizer.eval_params(state.opt_state, params)
    return state.variables._replace(params=params)

  return types.Learner(init, step, evaluated)
