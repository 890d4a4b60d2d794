"""The actor and the critic against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.leaf import Leaf
from models.control.policy_value import policy_value
from train import types
from train.environments.cartpole import cartpole
from train.learners import actor_critic as learners
from train.optimization import optimizers
from train.tasks.policy_gradient import policy_gradient

B = 8


def counting(most_steps=5) -> types.Environment:
  """An environment that counts its steps, each worth 2."""

  def step(state, action, rng):
    del action, rng
    state += 1
    seen = state.astype(jnp.float32)[None]
    return state, seen, jnp.float32(2), jnp.bool_(False), state >= most_steps

  def reset(rng):
    del rng
    return jnp.int32(0), jnp.zeros(1)

  leaf = Leaf((1,), np.dtype(np.float32), ("feature",))
  return types.Environment(reset, step, leaf, 2, most_steps)


def learner_of(environment, inputs, optimizer="sgd", **settings):
  model = policy_value(in_features=inputs, out_features=2, hidden=(8,))
  optimizer = optimizers.make({"name": optimizer, "lr": 0.1}, 10)
  return learners.actor_critic(
    policy_gradient(model), optimizer, environment=environment, **settings
  )


def test_advantages_are_the_sums_of_their_definition():
  rng = np.random.default_rng(0)
  T, gamma, lam = 7, 0.9, 0.8
  reward, value, following = rng.normal(size=(3, T, 2))
  terminated, truncated = np.zeros((2, T, 2), bool)
  terminated[2, 0] = truncated[4, 1] = terminated[5, 1] = truncated[5, 1] = True
  wanted = np.zeros((T, 2))
  for b in range(2):
    for t in range(T):
      weight = 1.0
      for k in range(t, T):  # Schulman et al., equation 16
        rest = 0 if terminated[k, b] else gamma * following[k, b]
        wanted[t, b] += weight * (reward[k, b] + rest - value[k, b])
        if terminated[k, b] or truncated[k, b]:
          break
        weight *= gamma * lam
  arrays = map(jnp.asarray, (reward, value, following, terminated, truncated))
  found = learners.advantages(*arrays, gamma, lam)
  np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)


def test_episodes_go_on_from_step_to_step_even_if_updates_are_dropped():
  learner = learner_of(counting(), 1, "adam", steps=4)
  batch = {"mask": jnp.ones(B)}
  state = jax.jit(learner.init)(jax.random.key(0), batch)
  step, found = jax.jit(learner.step), []
  for k in range(3):
    state, metrics = step(state, batch, jax.random.key(k))
    found.append([float(x) for x in (*metrics["return"], *metrics["length"])])
  # Steps 5 and 10 of the 12 end an episode in every environment.
  assert found == [[0] * 4, [80, 8, 40, 8], [80, 8, 40, 8]]
  playing = state.extra["environments"]
  assert playing["state"].tolist() == playing["length"].tolist() == [2] * B
  assert playing["observation"].tolist() == [[2.0]] * B
  assert playing["return"].tolist() == [4.0] * B
  state.variables.params["value"]["layers"]["1"]["bias"] *= jnp.nan
  after, metrics = step(state, batch, jax.random.key(3))
  assert metrics["dropped"].total == 1 and after.step == 4
  assert after.extra["environments"]["length"].tolist() == [1] * B
  for a, b in zip(
    jax.tree.leaves((after.variables, after.opt_state)),
    jax.tree.leaves((state.variables, state.opt_state)),
    strict=True,
  ):
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("baseline", [True, False])
def test_the_gradient_is_that_of_numpy(baseline):
  """Of the biases of the last layers: one environment at a time, by hand."""
  settings = {"steps": 3, "discount": 0.9, "gae_lambda": 1.0}
  learner = learner_of(
    counting(2), 1, normalize=False, baseline=baseline, **settings
  )
  batch = {"mask": jnp.ones(B)}
  state = jax.jit(learner.init)(jax.random.key(0), batch)
  params = state.variables.params
  value = params["value"]["layers"]
  value["1"] = jax.tree.map(jnp.zeros_like, value["1"])
  value["1"]["bias"] += 7.0  # the value of every state
  for leaf in params["policy"]["layers"].values():
    leaf["kernel"] *= 0  # both actions are equally likely
  grads = jax.jit(learner.gradients)(state, batch, jax.random.key(1))
  # Step 2 truncates the first episode, and the rollout ends within the second:
  # the value of the last observation follows each of them.
  last = 2 + 0.9 * 7
  target = np.array([2 + 0.9 * last, last, last])
  error = (7 - target).mean() * 0.5
  (bias,) = grads["value"]["layers"]["1"]["bias"]
  assert float(bias) == pytest.approx(error, rel=1e-5)
  play_rng, _ = jax.random.split(jax.random.key(1))
  keys = [jax.random.split(k, 3)[0] for k in jax.random.split(play_rng, 3)]
  action = np.array(
    [jax.random.categorical(k, jnp.zeros((B, 2))) for k in keys]
  )
  weight = target - 7 if baseline else target
  # d(-w ln p(a)) / d logit_1 = w (p_1 - [a = 1])
  logit = (weight[:, None] * (0.5 - action)).mean()
  found = grads["policy"]["layers"]["1"]["bias"][1]
  assert float(found) == pytest.approx(logit, rel=1e-5)


def test_the_gradients_are_those_at_the_given_params():
  learner = learner_of(cartpole(), 4, steps=3)
  batch, rng = {"mask": jnp.ones(2)}, jax.random.key(1)
  state = learner.init(jax.random.key(0), batch)
  params = state.variables.params
  at = jax.tree.map(lambda x: x + 0.3, params)
  there = state._replace(variables=state.variables._replace(params=at))
  grads = learner.gradients(there, batch, rng)
  new, _ = learner.step(state, batch, rng, at=at)
  jax.tree.map(
    lambda w, g, found: np.testing.assert_allclose(
      found, w - 0.1 * g, atol=1e-6
    ),
    params,
    grads,
    new.variables.params,
  )
