"""Players of an adversarial learner, worked by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.errors import UserError
from train import types
from train.learners.adversarial import adversarial
from train.optimization import optimizers

X = np.asarray([1.0, 3.0])
KEY = jax.random.key(0)


def sgd(lr=0.1):
  return optimizers.make({"name": "sgd", "lr": lr}, 100)


def three():
  """Three players of scalars; two of them share an encoder e.

  With the mean m of x: L_a = m a e, L_b = b^2 e / 2, L_c = (c - a)^2 / 2.
  """

  def losses(value):
    def loss(variables, batch, context):
      p = variables.params
      m = jnp.mean(batch["x"])
      noise = 0 * jax.random.uniform(context.rng)
      mean = types.mean_of(value(p["e"], p["a"], p["b"], p["c"], m) + noise)
      return mean, types.Aux({}, {})

    return loss

  def init(rng, batch):
    start = {"e": 1.0, "a": 2.0, "b": -1.0, "c": 0.5}
    return types.Variables({k: jnp.float32(v) for k, v in start.items()}, {})

  return types.Task(
    init,
    {
      "a": losses(lambda e, a, b, c, m: m * a * e),
      "b": losses(lambda e, a, b, c, m: b**2 * e / 2),
      "c": losses(lambda e, a, b, c, m: (c - a) ** 2 / 2),
    },
    {},
  )


PLAYERS = (
  {"name": "b", "params": ("e", "b")},
  {"name": "a", "params": ("e", "a"), "every": 2},
  {"name": "c", "steps": 2},
)


def test_three_players_of_a_shared_encoder_move_by_hand():
  learner = adversarial(three(), sgd(), players=PLAYERS)
  batch = {"x": jnp.asarray(X, jnp.float32)}
  state = jax.jit(learner.init)(jax.random.key(0), batch)
  step = jax.jit(learner.step)
  e, a, b, c = 1.0, 2.0, -1.0, 0.5
  for k in range(4):
    loss_b = b**2 * e / 2
    e, b = e - 0.1 * b**2 / 2, b - 0.1 * b * e
    if k % 2 == 0:
      loss_a, m = X.mean() * a * e, X.mean()
      e, a = e - 0.1 * m * a, a - 0.1 * m * e
    for _ in range(2):
      loss_c = (c - a) ** 2 / 2
      c = c - 0.1 * (c - a)
    state, metrics = step(state, batch, jax.random.key(k))
    found = {n: float(v) for n, v in state.variables.params.items()}
    assert found == pytest.approx({"e": e, "a": a, "b": b, "c": c}, rel=1e-5)
    # Between its moves, a player's metrics are those of its last one.
    for name, wanted in {"a": loss_a, "b": loss_b, "c": loss_c}.items():
      shown = float(metrics[f"{name}_loss"].value())
      assert shown == pytest.approx(wanted, rel=1e-5)
    counts = {n: int(s.count) for n, s in state.opt_state.items()}
    assert counts == {"a": k // 2 + 1, "b": k + 1, "c": 2 * (k + 1)}


def test_a_dropped_step_keeps_what_was_last_reported():
  learner = adversarial(three(), sgd(), players=PLAYERS)
  batch = {"x": jnp.asarray(X, jnp.float32)}
  step = jax.jit(learner.step)
  first, before = step(learner.init(KEY, batch), batch, KEY)
  state, _ = step(first, batch, KEY)
  bad, metrics = step(state, {"x": batch["x"].at[0].set(jnp.nan)}, KEY)
  assert metrics["dropped"].total == 1
  assert jax.tree.leaves(bad[1:]) == jax.tree.leaves(state[1:])
  _, metrics = step(bad, batch, KEY)  # step 3: the player a rests
  assert metrics["a_loss"] == before["a_loss"]


@pytest.mark.parametrize(
  "players, message",
  [
    ([{"name": "a"}, {"name": "b"}], "not one for each loss"),
    ([*PLAYERS, PLAYERS[0]], "not one for each loss"),
    ([{"name": "aa"}], r"players.0.: name='aa'.*did you mean \"a\""),
    ([{"name": "a", "evry": 2}], r'players.0..evry: .* mean "every"'),
    ([{"every": 2}], "players.0.: player needs name"),
    ([*PLAYERS[:2], {"name": "c", "every": 0}], "every=0"),
    ([*PLAYERS[:2], {"name": "c", "params": ("d",)}], "updates 'd', which"),
    (None, "no player updates the params e"),
  ],
)
def test_wrong_players_are_one_line(players, message):
  with pytest.raises((ValueError, UserError), match=message) as error:
    adversarial(three(), sgd(), players=players).init(jax.random.key(0), {})
  assert "\n" not in str(error.value)
