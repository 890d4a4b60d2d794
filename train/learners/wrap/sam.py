"""Sharpness-aware minimization: the gradient is taken uphill of the params."""

import jax
import jax.numpy as jnp
import optax

from train import types


def sam(learner: types.Learner, *, rho: float = 0.05) -> types.Learner:
  """Updates by the gradient at the parameters w + rho * g / |g|.

  g is the mean gradient of the batch at w, and |g| its global norm (Foret et
  al., arXiv:2010.01412, equation 2). A step computes two gradients of the same
  batch with the same random key, so that it takes twice the time; the optimizer
  then updates w itself. Both gradients are those of the whole batch, also with
  microbatches. Loss, metrics and model_state are those at w + rho * g / |g|.

  Parameters that the optimizer freezes count for g and are moved for the second
  gradient, but not updated.

  Args:
    learner: one that offers its gradients, such as supervised.
    rho: the distance at which the second gradient is computed, above 0.

  Raises:
    ValueError: `rho` is not above 0, or the learner offers no gradients.
  """
  if not rho > 0:
    raise ValueError(f"rho={rho} is not above 0")
  gradients = learner.gradients
  if gradients is None:
    raise ValueError(
      "sam needs a learner that offers its gradients, such as supervised"
    )

  def at(state, params):
    return state._replace(variables=state.variables._replace(params=params))

  def uphill(state, batch, rng):
    grads = gradients(state, batch, rng)
    # The least normal float, where all gradients are 0.
    norm = jnp.maximum(optax.tree.norm(grads), jnp.finfo(jnp.float32).tiny)
    return jax.tree.map(
      lambda p, g: (p + rho / norm * g).astype(p.dtype),
      state.variables.params,
      grads,
    )

  def step(state, batch, rng, **given):
    start = at(state, given["at"]) if given else state
    return learner.step(state, batch, rng, at=uphill(start, batch, rng))

  def mean_gradients(state, batch, rng):
    return gradients(at(state, uphill(state, batch, rng)), batch, rng)

  return learner._replace(step=step, gradients=mean_gradients)
