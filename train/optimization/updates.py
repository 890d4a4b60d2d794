"""Functions shared by learners: gradients, parameter updates, loss scaling.

A loss is a Mean, so the gradient of a batch is sum(grad) / sum(weight), which
is divided once.

Float16 cannot represent values below 6e-8, and many gradients are smaller. The
loss is therefore multiplied by a scale before it is differentiated, and the
gradients are divided by the scale in float32 (Micikevicius et al.,
arXiv:1710.03740, section 3.2). A dynamic scale is halved when a gradient
overflows and doubled after many updates without an overflow.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from train import types
from train.types import Aux, Mean, PyTree

# The values of PyTorch's GradScaler, except that its scale has no bounds.
INITIAL_SCALE = 2.0**16
GROWTH_STEPS = 2000
LARGEST_SCALE = 2.0**24
# An overflow at scale 1 is not caused by the scale, so it must be reported.
SMALLEST_SCALE = 1.0


class LossScale(NamedTuple):
  """The state of a dynamic loss scale.

  scale: float32 scalar, the factor that multiplies the mean loss.
  good_steps: int32 scalar, the number of updates since the scale changed.
  skipped_steps: int32 scalar, the number of updates of the run that overflowed.
  """

  scale: jax.Array
  good_steps: jax.Array
  skipped_steps: jax.Array


def gradients(
  loss: Callable[[PyTree], tuple[Mean, Aux]],
  params: PyTree,
  scale: jax.Array | float | None = None,
) -> tuple[PyTree, Mean, Aux]:
  """Returns (sum of gradients, Mean of the loss, Aux) of a batch at `params`.

  Args:
    loss: params -> (Mean, Aux).
    params: the parameters with respect to which the loss is differentiated.
    scale: if given, scale * mean loss is differentiated, and the scale is
      removed from the gradients, which are then float32.
  """

  def objective(params):
    mean, aux = loss(params)
    if scale is None:
      return mean.total, (mean, aux)
    return mean.total * (scale / _divisor(mean)), (mean, aux)

  grads, (mean, aux) = jax.grad(objective, has_aux=True)(params)
  if scale is not None:
    back = _divisor(mean) / scale
    grads = jax.tree.map(lambda g: g.astype(jnp.float32) * back, grads)
  return grads, mean, aux


def averaged(grads: PyTree, mean: Mean) -> PyTree:
  """Returns mean gradients from summed gradients and the Mean of the loss."""
  weight = _divisor(mean)
  return jax.tree.map(lambda g: (g / weight).astype(g.dtype), grads)


def descend(
  optimizer: types.Optimizer,
  grads: PyTree,
  mean: Mean,
  opt_state: PyTree,
  params: PyTree,
) -> tuple[PyTree, PyTree, jax.Array]:
  """Updates the parameters; returns (params, opt_state, gradient norm).

  `grads` is a sum of gradients. The norm is that of the mean gradient, a
  float32 scalar.
  """
  grads = averaged(grads, mean)
  updates, opt_state = optimizer.update(grads, opt_state, params, mean.value())
  return optax.apply_updates(params, updates), opt_state, optax.tree.norm(grads)


def _divisor(mean: Mean) -> jax.Array:
  return jnp.where(mean.weight == 0, 1, mean.weight)


def initial_scale() -> LossScale:
  """Returns the LossScale at the start of a run."""
  # Separate arrays, since the step donates each buffer and may do so only once.
  return LossScale(
    jnp.float32(INITIAL_SCALE),
    jnp.zeros((), jnp.int32),
    jnp.zeros((), jnp.int32),
  )


def finite(mean: Mean, grad_norm: jax.Array) -> jax.Array:
  """Returns whether a loss and all its gradients are finite, a bool scalar.

  The norm is finite only if all elements and the sum of their squares are.
  """
  return jnp.isfinite(mean.total) & jnp.isfinite(grad_norm)


def dropped(finite: jax.Array) -> Mean:
  """Returns the metric "dropped", by which the loop counts dropped updates."""
  return types.mean_of(~finite)


def kept(metrics: dict[str, Mean]) -> jax.Array:
  """Returns whether a step changed the parameters, a bool scalar.

  A step of which no update is dropped or excused did; and so did one of several
  workers of which one did.
  """
  if "dropped" not in metrics:
    return jnp.bool_(True)
  dropped = metrics["dropped"]
  return dropped.total < dropped.weight


def rescaled(old: LossScale, finite: jax.Array) -> LossScale:
  """Returns the scale after an update.

  The scale is halved after an overflow and doubled after GROWTH_STEPS updates
  without one.

  Args:
    old: the scale that the update was computed with.
    finite: bool scalar, whether the gradients of the update were finite.
  """
  good_steps = jnp.where(finite, old.good_steps + 1, 0)
  grow = good_steps >= GROWTH_STEPS
  grown = jnp.minimum(2 * old.scale, LARGEST_SCALE)
  halved = jnp.maximum(old.scale / 2, SMALLEST_SCALE)
  return LossScale(
    jnp.where(finite, jnp.where(grow, grown, old.scale), halved),
    jnp.where(grow, 0, good_steps),
    old.skipped_steps + ~finite,
  )


def chosen(finite: jax.Array, new: PyTree, old: PyTree) -> PyTree:
  """Returns `new` if the gradients were finite, else an exact copy of `old`."""
  return jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old)


def unless_dropped(
  finite: jax.Array, new: types.State, old: types.State
) -> types.State:
  """Returns `new`, with what `old` has learned if an update is to be dropped.

  If the gradients were not finite, params, model_state and opt_state are exact
  copies of those of `old`. The step is always that of `new`, since it also
  counts dropped updates, and so is `extra`: a learner passes the parts of it
  that an update changes through `chosen`.
  """
  params, model_state, opt_state = chosen(
    finite,
    (new.variables.params, new.variables.model_state, new.opt_state),
    (old.variables.params, old.variables.model_state, old.opt_state),
  )
  variables = types.Variables(params, model_state, new.variables.frozen)
  return new._replace(variables=variables, opt_state=opt_state)


def excused(
  metrics: dict[str, Mean], finite: jax.Array, scale: jax.Array
) -> dict[str, Mean]:
  """Returns `metrics` without values that an overflow made infinite.

  If the scaled loss overflowed, non-finite Means become empty, with weight 0,
  and so does "dropped", since a decreasing scale is normal. The metrics do not
  change if the gradients were finite or the scale is at its minimum.
  """
  may_be = ~finite & (scale > SMALLEST_SCALE)

  def one(name, mean):
    empty = may_be & ((name == "dropped") | ~jnp.isfinite(mean.total))
    return Mean(*(jnp.where(empty, 0.0, x) for x in mean))

  return {name: one(name, mean) for name, mean in metrics.items()}
