"""Environments by their published equations, and runs that play them."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from common.errors import UserError
from configs.control import cartpole as experiment
from train import assembly, build, loop, run_data, types
from train.environments.cartpole import State, cartpole
from train.environments.pendulum import State as Swing
from train.environments.pendulum import pendulum
from train.evaluators.episodes import episodes
from train.objectives import policies
from train.planning import analytic, compile_ahead

SIZED = {"name": "policy_value", "in_features": 4, "out_features": 2}


def pushed(state, action):
  """The next state, float64 [4], from Barto, Sutton and Anderson's appendix.

  Without friction: the angular acceleration, then that of the cart, from masses
  of 1 and 0.1 kg, a pole of half length 0.5 m and steps of 0.02 s.
  """
  x, v, angle, w = (float(each) for each in state)
  force = 10.0 if action else -10.0
  pull = (-force - 0.1 * 0.5 * w**2 * np.sin(angle)) / 1.1
  inertia = 0.5 * (4 / 3 - 0.1 * np.cos(angle) ** 2 / 1.1)
  turn = (9.8 * np.sin(angle) + np.cos(angle) * pull) / inertia
  push = force + 0.1 * 0.5 * (w**2 * np.sin(angle) - turn * np.cos(angle))
  rates = np.array([v, push / 1.1, w, turn])
  return np.array([x, v, angle, w]) + 0.02 * rates


def test_cartpole_is_the_published_equations_for_200_steps():
  state, states, actions = np.array([0.03, -0.04, 0.02, 0.05]), [], []
  for _ in range(200):
    actions.append(int(state @ [0.02, 0.1, 1.0, 0.5] > 0))
    states.append(state)
    state = pushed(state, actions[-1])
  wanted = np.array([*states[1:], state])
  assert np.abs(wanted[:, 2]).max() < 0.2  # it balances
  before = State(jnp.float32(states), jnp.arange(200))
  step = jax.jit(jax.vmap(cartpole(most_steps=150).step, (0, 0, None)))
  found = step(before, jnp.asarray(actions), None)
  after, seen, reward, terminated, truncated = found
  np.testing.assert_allclose(seen, wanted, rtol=0, atol=1e-6)
  np.testing.assert_array_equal(after.physics, seen)
  assert reward.tolist() == [1.0] * 200
  assert not terminated.any()
  assert truncated.tolist() == [False] * 149 + [True] * 51


def test_pendulum_is_the_published_equations_for_200_steps():
  """Those of Gymnasium's Pendulum-v1, in float64, and its cost."""
  rng, g, dt, m, length = np.random.default_rng(0), 10.0, 0.05, 1.0, 1.0
  theta, speed, rows = 2.0, -0.7, []
  for action in rng.uniform(-4, 4, 200):  # beyond the motor's 2 N m
    u = np.clip(action, -2, 2)
    near = ((theta + np.pi) % (2 * np.pi)) - np.pi
    reward = -(near**2 + 0.1 * speed**2 + 0.001 * u**2)
    pull = 3 * g / (2 * length) * np.sin(theta) + 3.0 / (m * length**2) * u
    next_speed = np.clip(speed + pull * dt, -8, 8)
    moved = theta + next_speed * dt
    rows.append((theta, speed, action, moved, next_speed, reward))
    theta, speed = moved, next_speed
  before, was, action, after, became, wanted = np.array(rows).T
  assert np.abs(before).max() > np.pi and np.abs(was).max() > 3
  world = pendulum(most_steps=150)
  state = Swing(jnp.float32(before), jnp.float32(was), jnp.arange(200))
  step = jax.jit(jax.vmap(world.step, (0, 0, None)))
  found = step(state, jnp.float32(action)[:, None], None)
  state, seen, reward, terminated, truncated = found
  np.testing.assert_allclose(state.angle, after, rtol=0, atol=2e-6)
  np.testing.assert_allclose(state.turning, became, rtol=0, atol=2e-6)
  wanted_seen = np.stack([np.cos(after), np.sin(after), became], 1)
  np.testing.assert_allclose(seen, wanted_seen, rtol=0, atol=3e-6)
  np.testing.assert_allclose(reward, wanted, rtol=1e-5)
  assert not terminated.any()
  assert truncated.tolist() == [False] * 149 + [True] * 51
  begun, _ = jax.vmap(world.reset)(jax.random.split(jax.random.key(0), 500))
  for part, most in ((begun.angle, np.pi), (begun.turning, 1)):
    assert 0.95 * most < np.abs(part).max() <= most
    assert stats.kstest((part / most + 1) / 2, "uniform").pvalue > 1e-3


def test_a_gaussian_policy_is_that_of_scipy():
  """Of two numbers, the second without bounds."""
  lowest, highest = np.array([-1.0, -np.inf]), np.array([3.0, np.inf])
  policy = policies.gaussian(lowest, highest)
  outputs = jnp.array([[0.2, -0.4, 0.3, -1.0]] * 4000)
  deviation = np.exp([0.3, -1.0])
  mode = [0.2 * 2 + 1, -0.4]
  np.testing.assert_allclose(policy.mode(outputs)[0], mode, rtol=1e-6)
  found = policy.sample(jax.random.key(0), outputs)
  for column, centre, width in zip(
    found.T, mode, deviation * [2, 1], strict=True
  ):
    assert stats.kstest(column, stats.norm(centre, width).cdf).pvalue > 1e-3
  units = (np.asarray(found) - [1, 0]) / [2, 1]
  wanted = stats.norm([0.2, -0.4], deviation).logpdf(units).sum(1)
  np.testing.assert_allclose(
    policy.log_prob(outputs, found), wanted, rtol=1e-4, atol=1e-5
  )
  entropy = stats.norm(0, deviation).entropy().sum()
  np.testing.assert_allclose(policy.entropy(outputs), entropy, rtol=1e-5)


def test_a_run_of_real_numbers_acts_by_a_gaussian():
  """What the actions are decides the policy, and an update is finite."""
  config = smoke(source="environment:pendulum?most_steps=20")
  run = build.run(config, None, say=lambda line: None)
  state, batch = run.init(), next(run.batches(0))
  first = state.variables.params["policy"]["layers"]["0"]["kernel"]
  before = np.asarray(first)
  state, metrics = jax.jit(run.learner.step)(state, batch, run.rng)
  assert np.isfinite(metrics["loss"].value()) and not metrics["dropped"].total
  after = state.variables.params["policy"]["layers"]["0"]["kernel"]
  assert (np.asarray(after) != before).any()
  found = run.evaluations["val"].evaluate(state.variables, 0)
  assert found["length"] == 20 and -20 * 16.3 < found["return"] < 0


def test_cartpole_ends_where_it_should():
  """Beyond 2.4 m from the middle, or 12 degrees from the upright."""
  states = np.zeros((6, 4))
  states[:3, 0] = 2.39, 2.39, -2.39
  states[:3, 1] = 0.4, 0.6, -0.6
  states[3:, 2] = 0.2, 0.2, -0.2
  states[3:, 3] = 0.4, 0.6, -0.5
  before = State(jnp.float32(states), jnp.zeros(6, int))
  step = jax.jit(jax.vmap(cartpole().step, (0, None, None)))
  _, seen, _, terminated, truncated = step(before, 1, None)
  wanted = [False, True, True, False, True, True]
  limits = np.abs(np.array([pushed(state, 1) for state in states]))
  assert ((limits[:, 0] > 2.4) | (limits[:, 2] > 0.2094395)).tolist() == wanted
  assert terminated.tolist() == wanted
  assert not truncated.any()


def test_episodes_are_those_of_a_loop():
  """A policy that always pushes to the right, from the same beginnings."""
  rng, environment = jax.random.key(3), cartpole()
  right = {
    "greedy": lambda v, batch, rng: jnp.ones(len(batch["observation"]), int)
  }
  task = types.Task(lambda *_: None, {}, right)
  nothing = dict.fromkeys(types.EvalContext._fields)
  context = types.EvalContext(**nothing)._replace(
    task=task, rng=rng, environment=environment, fetch=jax.device_get
  )
  found = episodes(context, count=5)(None, 0)
  keys = jax.random.split(jax.random.split(rng)[0], 5)
  lengths = []
  for begun in jax.jit(jax.vmap(environment.reset))(keys)[1]:
    state, steps = np.asarray(begun, float), 0
    while abs(state[0]) <= 2.4 and abs(state[2]) <= np.radians(12):
      state, steps = pushed(state, 1), steps + 1
    lengths.append(steps)
  assert min(lengths) < max(lengths)
  mean, least = np.mean(lengths), min(lengths)
  wanted = {"return": mean, "length": mean, "least_return": least}
  assert found == pytest.approx(wanted)


def smoke(**data):
  config = experiment.get_config("smoke")
  config.data.update(data)
  return config


@pytest.mark.parametrize(
  ("changes", "line"),
  [
    (
      {"data": {"source": "environment:cartpol"}},
      'config.data.source: train/environments has no .* mean "cartpole"',
    ),
    (
      {"data": {"source": "environment:cartpole?steps=3"}},
      r"config.data.source.steps: unknown to .*cartpole.py.*most_steps",
    ),
    (
      {"data": {"source": "environment:cartpole?most_steps=x"}},
      "config.data.source: most_steps='x' is not a positive integer",
    ),
    (
      {"data": {"source": f"environment:cartpole?most_steps={2**31}"}},
      "most_steps=2147483648 is not a positive integer of 32 bits",
    ),
    ({"data": {"ops": "flip"}}, "config.data.ops: an environment has no rec"),
    ({"batch_size": "all"}, "config.batch_size='all': set the number of env"),
    (
      {"learner": {"name": "supervised"}},
      "policy_gradient reads the field 'observation', and the data have index",
    ),
    (
      {"data": {"source": "fake:linear"}, "model": SIZED},
      "actor_critic needs environment, which neither the config nor the data",
    ),
    (
      {"evals": {"val": {"name": "mean"}}},
      "config.evals.val: an environment has no examples to evaluate",
    ),
    (
      {"evals": {"val": {"name": "episodes", "source": "fake:linear"}}},
      "config.evals.val: episodes plays an environment",
    ),
  ],
)
def test_what_an_environment_cannot_be_is_one_line(changes, line):
  config = smoke().to_dict()
  for key, value in changes.items():
    merged = key == "data" and value
    config[key] = {**config[key], **merged} if merged else value
  with pytest.raises(UserError, match=line) as error:
    run = build.run(config, None, say=lambda line: None)
    batch = next(run.batches(0))
    jax.eval_shape(run.learner.step, run.abstract_state, batch, run.rng)
    run.evaluations["val"].evaluate(run.abstract_state.variables, 0)
  assert "\n" not in str(error.value)


def test_a_run_of_an_environment_is_planned():
  complete = assembly.complete(smoke())
  parts = compile_ahead.experiment(complete, jax.devices())
  assert set(parts.data.spec) == {"mask", "index"}
  assert run_data.sizes(parts.data) == {"in_features": 4, "out_features": 2}
  # Of 8 environments and 4 steps, through hidden layers of 8.
  kept = {x.shape for x in analytic.residuals(parts)}
  assert (32, 8) in kept


@pytest.mark.slow
def test_resumed_on_another_mesh_is_the_straight_run(tmp_path):
  """To the bit, from the middle of the episodes.

  Over "tensor", every device computes the whole batch, as a single one would.
  """
  path, states, rows = tmp_path / "run", {}, []
  for mesh in ({"data": 8}, {"tensor": 8}):
    config = smoke()
    config.mesh, config.evals = mesh, {}
    config.sharding = [(".*", "replicate")]
    config.model.hidden, config.optimizer = (), dict(name="sgd", lr=0.1)
    run = build.run(config, str(path), say=lambda line: None)
    playing = run.abstract_state.extra["environments"]
    shared = playing["return"].sharding.shard_shape((8,))
    assert shared == (8 // mesh.get("data", 1),)

    def observe(step, state, batch, rng, mesh=mesh):
      del batch, rng
      states[*mesh, step] = jax.device_get(state)

    reports = loop.fit(run._replace(observe=observe))
    rows.append(
      [
        {k: v for k, v in report.scalars.items() if k.startswith("train/")}
        for report in reports
      ]
    )
    # As if the run had been killed before its last save.
    shutil.rmtree(path / "checkpoints" / "4")
  assert rows[0][2:] == rows[1]
  # No episode ends within the first four steps of the environments.
  assert "train/return" not in rows[0][0] and "train/loss" in rows[0][0]
  assert ("tensor", 1) not in states
  found, wanted = (jax.tree.leaves(states[k, 3]) for k in ("tensor", "data"))
  for a, b in zip(found, wanted, strict=True):
    assert a.tobytes() == b.tobytes()
