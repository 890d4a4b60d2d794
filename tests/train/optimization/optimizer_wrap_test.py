"""Wrappers of optimizers against their papers' formulas in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np

from train.optimization import optimizers
from train.optimization.wrap.gradient_noise import gradient_noise
from train.optimization.wrap.lookahead import lookahead


def moved(optimizer, params, gradients):
  """(params, the params to evaluate, state) after each update."""
  state, found = optimizer.init(params), []
  for grads in gradients:
    changes, state = jax.jit(optimizer.update)(grads, state, params, 0.0)
    params = jax.tree.map(jnp.add, params, changes)
    found.append((params, optimizer.eval_params(state, params), state))
  return found


def test_lookahead_is_two_loops_around_momentum():
  inner = optimizers.make({"name": "momentum", "lr": 0.1}, 100)
  optimizer = lookahead(inner, every=3, slow_rate=0.25)
  gradients = np.random.default_rng(0).normal(size=(8, 4))
  found = moved(
    optimizer, {"w": jnp.ones(4)}, [{"w": jnp.float32(g)} for g in gradients]
  )
  slow = fast = np.ones(4)
  trace = 0
  for k, g in enumerate(gradients):
    trace = g + 0.9 * trace
    fast = fast - 0.1 * trace
    if k % 3 == 2:
      slow = fast = slow + 0.25 * (fast - slow)
    params, evaluated, state = found[k]
    np.testing.assert_allclose(params["w"], fast, atol=1e-6)
    np.testing.assert_allclose(evaluated["w"], slow, atol=1e-6)
  assert abs(fast - slow).max() > 0.05
  np.testing.assert_allclose(optimizer.learning_rate(state), 0.1)


def test_the_noise_decays_and_is_a_function_of_seed_and_update():
  zeros = {"w": jnp.zeros(20_000)}
  inner = optimizers.make({"name": "sgd", "lr": 1.0}, 100)

  def noises(seed, steps=3):
    optimizer = gradient_noise(inner, eta=0.04, gamma=1.0, seed=seed)
    found = moved(optimizer, zeros, [zeros] * steps)
    return np.diff([zeros["w"], *(params["w"] for params, *_ in found)], axis=0)

  first = noises(1)
  for t, noise in enumerate(first):
    assert abs(noise.mean()) < 0.006
    np.testing.assert_allclose(noise.var(), 0.04 / (1 + t), rtol=0.05)
  assert abs(np.corrcoef(first)[0, 1]) < 0.03
  np.testing.assert_array_equal(first, noises(1))
  assert not np.array_equal(first, noises(2))
