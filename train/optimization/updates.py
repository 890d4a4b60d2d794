"""What learners share: gradients of sums, a step down them, and loss scaling.

Losses are Means, so a gradient is sum(grad) / sum(weight), divided once.

Float16 holds nothing below 6e-8, and many gradients are smaller. The loss is
therefore multiplied by a scale before it is differentiated, and the gradients
divided by it in float32 (Micikevicius et al., arXiv:1710.03740, section 3.2).
A dynamic scale falls where a gradient overflowed, and else rises now and then.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from train import types
from train.types import Aux, Mean, PyTree

# As PyTorch's GradScaler, whose scale has no bounds.
INITIAL_SCALE = 2.0**16
GROWTH_STEPS = 2000
LARGEST_SCALE = 2.0**24
# What overflows unscaled is no matter of the scale: the run must hear of it.
SMALLEST_SCALE = 1.0


class LossScale(NamedTuple):
  """The state of a dynamic loss scale.

  scale: float32 scalar, what the mean loss is multiplied by.
  good_steps: int32 scalar, updates since the scale last changed.
  skipped_steps: int32 scalar, updates that overflowed, in the whole run.
  """

  scale: jax.Array
  good_steps: jax.Array
  skipped_steps: jax.Array


def gradients(
  loss: Callable[[PyTree], tuple[Mean, Aux]],
  params: PyTree,
  scale: jax.Array | float | None = None,
) -> tuple[PyTree, Mean, Aux]:
  """(sum of gradients, Mean of the loss, Aux) of a batch at `params`.

  Args:
    loss: params -> (Mean, Aux).
    params: what is differentiated.
    scale: if given, scale * mean loss is what is differentiated; the gradients
      come out as without it, in float32.
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
  """The mean gradients, of a sum of gradients and the Mean of its loss."""
  weight = _divisor(mean)
  return jax.tree.map(lambda g: (g / weight).astype(g.dtype), grads)


def descend(
  optimizer: types.Optimizer,
  grads: PyTree,
  mean: Mean,
  opt_state: PyTree,
  params: PyTree,
) -> tuple[PyTree, PyTree, jax.Array]:
  """One update by a sum of gradients: (params, opt_state, gradient's norm).

  The norm is of the mean gradient, a float32 scalar.
  """
  grads = averaged(grads, mean)
  updates, opt_state = optimizer.update(grads, opt_state, params, mean.value())
  return optax.apply_updates(params, updates), opt_state, optax.tree.norm(grads)


def _divisor(mean: Mean) -> jax.Array:
  return jnp.where(mean.weight == 0, 1, mean.weight)


def initial_scale() -> LossScale:
  """The LossScale of a run that starts."""
  # One array each: the step donates its buffers, and one is given once.
  return LossScale(
    jnp.float32(INITIAL_SCALE),
    jnp.zeros((), jnp.int32),
    jnp.zeros((), jnp.int32),
  )


def finite(mean: Mean, grad_norm: jax.Array) -> jax.Array:
  """Whether a loss and all its gradients are finite, a bool scalar.

  A norm is finite only where every element is, and their squares' sum too.
  """
  return jnp.isfinite(mean.total) & jnp.isfinite(grad_norm)


def dropped(finite: jax.Array) -> Mean:
  """The metric that tells the loop of an update that was dropped."""
  return types.mean_of(~finite)


def rescaled(old: LossScale, finite: jax.Array) -> LossScale:
  """The scale after an update: halved by an overflow, doubled in the long run.

  Args:
    old: what the update was computed with.
    finite: bool scalar, whether its gradients were.
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


def unless_dropped(
  finite: jax.Array, new: types.State, old: types.State
) -> types.State:
  """`new` where the gradients were finite, else `old`, bit for bit.

  But for the step, which counts updates that were dropped too.
  """
  kept = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old)
  return kept._replace(step=new.step)


def excused(
  metrics: dict[str, Mean], finite: jax.Array, scale: jax.Array
) -> dict[str, Mean]:
  """`metrics` without what an overflow of the scaled loss made infinite.

  Such a Mean comes out empty, of weight 0, and so does "dropped": a scale that
  falls is no sign of a run gone wrong. They are left as they are where the
  gradients were finite, or the scale cannot fall.
  """
  may_be = ~finite & (scale > SMALLEST_SCALE)

  def one(name, mean):
    empty = may_be & ((name == "dropped") | ~jnp.isfinite(mean.total))
    return Mean(*(jnp.where(empty, 0.0, x) for x in mean))

  return {name: one(name, mean) for name, mean in metrics.items()}
