"""Gradient noise, whose variance decreases during the run."""

import jax
import jax.numpy as jnp
import optax

from train import types


def gradient_noise(
  optimizer: types.Optimizer,
  *,
  eta: float = 0.01,
  gamma: float = 0.55,
  seed: int = 0,
) -> types.Optimizer:
  """Adds Gaussian noise of variance eta / (1 + t)^gamma to the gradient.

  t counts the updates from 0 (Neelakantan et al., arXiv:1511.06807). The noise
  is added to the mean gradient, before the optimizer clips it, and is a
  function of seed and t. The workers of diloco draw the same noise.

  Args:
    optimizer: the one that receives the noisy gradient.
    eta: the variance of each element at t = 0, at least 0.
    gamma: the exponent of its decay, at least 0.
    seed: of the noise; by default config.seed.

  Raises:
    ValueError: a value is negative.
  """
  if eta < 0 or gamma < 0:
    raise ValueError(f"eta={eta} or gamma={gamma} is negative")

  def init(params):
    count = jnp.zeros((), jnp.int32)
    return {"count": count, "inner": optimizer.init(params)}

  def update(grads, opt_state, params, value=None):
    # Optax would keep a random key, which is not a plain array, in its state.
    count = opt_state["count"]
    key = jax.random.fold_in(jax.random.key(seed), count)
    noise = optax.add_noise(eta, gamma, key)
    grads, added = noise.update(grads, optax.AddNoiseState(count, key))
    changes, inner = optimizer.update(grads, opt_state["inner"], params, value)
    return changes, {"count": added.count, "inner": inner}

  return types.Optimizer(
    init,
    update,
    lambda opt_state: optimizer.learning_rate(opt_state["inner"]),
    lambda opt_state, params: optimizer.eval_params(opt_state["inner"], params),
    optimizer.frozen,
  )
