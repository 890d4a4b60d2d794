"""Supervised learning: one loss and one optimizer for all parameters."""

import math

import jax
import jax.numpy as jnp
import optax

from common.errors import UserError
from train import types
from train.learners.wrap.ema import ema as averaging
from train.optimization import updates


def supervised(
  task: types.Task,
  optimizer: types.Optimizer,
  *,
  microbatches: int = 1,
  ema: float = 0.0,
  loss_scale: float | str = 1.0,
) -> types.Learner:
  """Gradient descent on the single loss of `task`.

  Gradients are sum(grad) / sum(weight) over the whole batch. An update does not
  depend on the number of microbatches, even with a ragged mask, if the loss is
  a sum over examples. A loss that couples the examples of a batch
  (Task.coupled) is refused with microbatches. What else a forward pass computes
  from several examples is that of one microbatch: batch statistics, the load
  balance and capacity of experts, the weight of the next-sentence loss, and the
  partners of mixup. Random draws differ by microbatch.

  An update whose loss or gradient is not finite is dropped: only `step`
  changes.

  Args:
    task: has exactly one loss.
    optimizer: turns gradients into updates.
    microbatches: number of parts that the batch is split into, which are
      computed one after another to save memory. It must divide the batch size.
    ema: decay of the moving average of params that is evaluated and exported,
      the wrapper `ema`; 0 keeps none.
    loss_scale: factor of the mean loss before it is differentiated, by which
      gradients are divided afterwards, for models that compute in float16.
      "dynamic" starts at 2^16 and is halved if a gradient is not finite, which
      skips that update: only `step` and the scale change. It is doubled after
      2,000 updates without one (train.optimization.updates). At scale 1 an
      update that is not finite counts as dropped, as in a run without a scale.

  Raises:
    ValueError: the task has several losses, or a value is out of range.
    UserError: there are microbatches, and the task's loss couples examples.
  """
  if len(task.losses) != 1:
    raise ValueError(
      f"supervised learns one loss; this task has {sorted(task.losses)}"
    )
  if microbatches < 1 or not 0 <= ema < 1:
    raise ValueError(f"microbatches={microbatches} < 1 or ema={ema} not in 0…1")
  if microbatches > 1 and task.coupled:
    raise UserError(
      f"config.learner.microbatches={microbatches}: the loss of the task"
      f" {task.name} couples the examples of a batch, which microbatches would"
      " separate; set it to 1"
    )
  dynamic = loss_scale == "dynamic"
  if not (dynamic or _is_above_0(loss_scale)):
    raise ValueError(
      f'loss_scale={loss_scale!r} is neither "dynamic" nor a number above 0'
    )
  fixed_scale = None if dynamic or loss_scale == 1 else float(loss_scale)
  (loss_fn,) = task.losses.values()

  def init(rng, batch):
    variables = task.init(rng, batch)
    extra = {}
    if dynamic:
      extra["loss_scale"] = updates.initial_scale()
    return types.State(
      step=jnp.zeros((), jnp.int32),
      variables=variables,
      opt_state=optimizer.init(variables.params),
      extra=extra,
    )

  def gradients(variables, batch, context, scale):
    """(sum of gradients, Mean of the loss, Aux) of one microbatch."""

    def loss(params):
      return loss_fn(variables._replace(params=params), batch, context)

    return updates.gradients(loss, variables.params, scale)

  def accumulate(variables, batch, context, scale):
    if microbatches == 1:
      return gradients(variables, batch, context, scale)
    parts = types.split(batch, microbatches)

    def body(carry, part_and_index):
      part, i = part_and_index
      model_state, sums = carry
      grads, mean, aux = gradients(
        variables._replace(model_state=model_state),
        part,
        context._replace(rng=jax.random.fold_in(context.rng, i)),
        scale,
      )
      sums = jax.tree.map(jnp.add, sums, (grads, mean, aux.metrics))
      return (aux.model_state, sums), None

    first = jax.tree.map(lambda x: x[0], parts)
    shapes = jax.eval_shape(gradients, variables, first, context, scale)
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

  def scale_of(state):
    return state.extra["loss_scale"].scale if dynamic else fixed_scale

  def mean_gradients(state, batch, rng):
    scale = scale_of(state)
    context = types.Context(rng, state.step, train=True)
    grads, mean, _ = accumulate(state.variables, batch, context, scale)
    return updates.averaged(grads, mean)

  def step(state, batch, rng, at=None):
    old, scale = state.variables, scale_of(state)
    context = types.Context(rng, state.step, train=True)
    read = old if at is None else old._replace(params=at)
    grads, mean, aux = accumulate(read, batch, context, scale)
    params, opt_state, grad_norm = updates.descend(
      optimizer, grads, mean, state.opt_state, old.params
    )
    finite = updates.finite(mean, grad_norm)
    extra = dict(state.extra)
    if dynamic:
      loss_scale = updates.rescaled(extra["loss_scale"], finite)
      extra["loss_scale"] = loss_scale
    variables = types.Variables(params, aux.model_state, old.frozen)
    new = types.State(state.step + 1, variables, opt_state, extra)
    new = updates.unless_dropped(finite, new, state)
    metrics = {
      "loss": mean,
      **aux.metrics,
      "grad_norm": types.mean_of(grad_norm),
      # Not finite after a wrong update, which is reported before it is saved.
      "param_norm": types.mean_of(optax.tree.norm(new.variables.params)),
      "learning_rate": types.mean_of(optimizer.learning_rate(state.opt_state)),
      "dropped": updates.dropped(finite),
    }
    if dynamic:
      metrics = {
        **updates.excused(metrics, finite, state.extra["loss_scale"].scale),
        "loss_scale": types.mean_of(state.extra["loss_scale"].scale),
        "skipped_steps": types.mean_of(loss_scale.skipped_steps),
      }
    return new, metrics

  def evaluated(state):
    params = optimizer.eval_params(state.opt_state, state.variables.params)
    return state.variables._replace(params=params)

  made = types.Learner(
    init, step, evaluated, mean_gradients, frozen=optimizer.frozen
  )
  return averaging(made, decay=ema) if ema else made


def _is_above_0(value) -> bool:
  if isinstance(value, bool) or not isinstance(value, int | float):
    return False
  return 0 < value < math.inf
