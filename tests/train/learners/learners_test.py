"""Learners against NumPy, and against loops written out by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from common import names
from common.errors import UserError
from configs.vision.classification import conv_fashion_mnist
from models import Model
from models.control.policy_value import policy_value
from models.language.ngram import ngram
from models.tabular.mlp import mlp
from models.vision.gan import Gan
from train import build, types
from train.environments.cartpole import cartpole
from train.learners.actor_critic import actor_critic
from train.learners.adversarial import adversarial
from train.learners.counting import counting
from train.learners.diloco import diloco
from train.learners.supervised import supervised
from train.optimization import optimizers
from train.tasks.generative_adversarial import generative_adversarial
from train.tasks.image_classification import image_classification
from train.tasks.language_modeling import language_modeling
from train.tasks.policy_gradient import policy_gradient
from train.tasks.regression import regression

# Rows i mod 4 form part i of 4: no real row, then two, one and one.
MASK = np.asarray([0, 1, 1, 0, 0, 1, 0, 1], np.float32)
PLAYERS = ("discriminator", "generator")


def dense(inputs, outputs, dropout=0.0):
  """A Model of one layer of tanh, to arrays of shape `outputs`.

  Tiny, so that compiling costs little: what is tested here is the learner.
  """
  size = int(np.prod(outputs))

  def init(rng):
    kernel = 0.5 * jax.random.normal(rng, (inputs, size))
    return {"kernel": kernel, "bias": jnp.zeros(size)}, {}

  def apply(params, model_state, x, rng=None, train=False, method=None):
    del method
    flat = x.reshape(x.shape[0], -1)
    y = jnp.tanh(flat @ params["kernel"] + params["bias"][None])
    if train and dropout:
      y *= jax.random.bernoulli(rng, 1 - dropout, y.shape) / (1 - dropout)
    return y.reshape(x.shape[0], *outputs), model_state

  return Model(init, apply)


def linear(mask=MASK, hidden=()):
  """(task, batch) of three inputs and two outputs."""
  rng = np.random.default_rng(0)
  batch = {
    "x": jnp.asarray(rng.normal(size=(8, 3)), jnp.float32),
    "y": jnp.asarray(rng.normal(size=(8, 2)), jnp.float32),
    "mask": jnp.asarray(mask),
  }
  model = mlp(in_features=3, out_features=2, hidden=hidden, activation="tanh")
  return regression(model), batch


def images(dropout=0.0, **settings):
  rng = np.random.default_rng(1)
  batch = {
    "image": jnp.asarray(rng.normal(size=(8, 4, 4, 1)), jnp.float32),
    "label": jnp.asarray(rng.integers(3, size=8), jnp.int32),
    "mask": jnp.asarray(MASK),
  }
  model = dense(16, (3,), dropout)
  return image_classification(model, **settings), batch


def texts(**settings):
  """Each token predicts the next by a table of its own."""
  rng = np.random.default_rng(2)
  tokens = rng.integers(11, size=(8, 6))
  # Of each real row, so many tokens are real.
  lengths = np.asarray([5, 1, 5, 2, 3, 4, 5, 2])[:, None]
  batch = {
    "inputs": jnp.asarray(tokens[:, :-1], jnp.int32),
    "targets": jnp.asarray(tokens[:, 1:], jnp.int32),
    "mask": jnp.asarray((np.arange(5) < lengths) * MASK[:, None]),
  }
  model = Model(
    lambda rng: ({"table": jax.random.normal(rng, (11, 11))}, {}),
    lambda params, state, x, **_: (params["table"][x], state),
  )
  return language_modeling(model, **settings), batch


def counts():
  """(task, batch) of n-grams, on the texts."""
  _, batch = texts()
  return language_modeling(ngram(vocab_size=11, order=3, capacity=99)), batch


def players(**settings):
  """(task, batch) of a tiny GAN, whose masks are ragged too."""
  rng = np.random.default_rng(3)
  batch = {
    "image": jnp.asarray(rng.uniform(-1, 1, (8, 2, 2, 1)), jnp.float32),
    "mask": jnp.asarray(MASK),
  }
  model = Gan(dense(3, (2, 2, 1)), dense(4, ()), latent=3)
  return generative_adversarial(model, **settings), batch


def acting():
  """(task, batch) of a tiny policy for cartpole."""
  model = policy_value(in_features=4, out_features=2, hidden=(4,))
  return policy_gradient(model), {"mask": jnp.asarray(MASK)}


def sgd(lr=0.1, **settings):
  return optimizers.make({"name": "sgd", "lr": lr, **settings}, 100)


def close(found, wanted, atol=1e-6):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=atol),
    found,
    wanted,
  )


def same(found, wanted):
  """Whether every leaf is equal to the bit."""
  pairs = zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True)
  return all(np.array_equal(a, b) for a, b in pairs)


def start(learner, batch, seed=0):
  return jax.jit(learner.init)(jax.random.key(seed), batch)


# Each learner's own row: (task, batch) and what it is built with.
EVERY = {
  "supervised": [
    (linear, {}),
    (linear, {"ema": 0.9, "microbatches": 2}),
    (linear, {"ema": 0.9, "loss_scale": "dynamic"}),
  ],
  "adversarial": [
    (players, {}),
    (players, {"ema": 0.9, "discriminator_steps": 2}),
    (
      players,
      {
        "players": [
          {"name": "generator", "every": 2},
          {"name": "discriminator"},
        ]
      },
    ),
  ],
  "actor_critic": [(acting, {"environment": cartpole(), "steps": 3})],
  "counting": [(counts, {})],
  "diloco": [
    (linear, {"workers": 2, "local_steps": 2, "microbatches": 2}),
    (linear, {"workers": 4, "local_steps": 1, "loss_scale": "dynamic"}),
  ],
}
MAKE = {
  "supervised": supervised,
  "actor_critic": actor_critic,
  "adversarial": adversarial,
  "counting": counting,
  "diloco": diloco,
}


def test_every_learner_has_a_row():
  files = set(names.discover("train.learners"))
  assert files == set(EVERY) == set(MAKE)


@pytest.mark.parametrize(
  ("name", "row"), [(n, i) for n in sorted(EVERY) for i in range(len(EVERY[n]))]
)
def test_every_learner_steps_a_pytree_of_arrays(name, row):
  make, settings = EVERY[name][row]
  task, batch = make()
  optimizer = optimizers.make({"name": "adam", "lr": 1e-3}, 100)
  learner = MAKE[name](task, optimizer, **settings)

  def shapes(tree):
    return jax.tree.map(lambda x: (x.shape, jnp.dtype(x.dtype)), tree)

  rng = jax.random.key(0)
  abstract_batch = jax.eval_shape(lambda: batch)
  abstract = jax.eval_shape(learner.init, rng, abstract_batch)
  after, metrics = jax.eval_shape(learner.step, abstract, batch, rng)
  assert shapes(after) == shapes(abstract)
  for mean in metrics.values():
    assert shapes(mean) == types.Mean(*2 * [((), jnp.dtype("float32"))])

  state = start(learner, batch)
  assert shapes(state) == shapes(abstract)
  assert all(isinstance(x, jax.Array) for x in jax.tree.leaves(state))
  assert shapes(learner.variables(state)) == shapes(state.variables)
  # Donation fails where one buffer stands twice in the state.
  step = jax.jit(learner.step, donate_argnums=0)
  for k in range(3):
    assert int(state.step) == k
    state, _ = step(state, batch, rng)


@pytest.mark.parametrize(
  "make",
  [
    lambda: linear(hidden=(4,)),
    lambda: images(label_smoothing=0.1),
    lambda: texts(z_loss=1e-3),
  ],
  ids=["regression", "image_classification", "language_modeling"],
)
def test_microbatches_change_nothing(make):
  task, batch = make()
  found = {}
  for n in (1, 2, 4):
    learner = supervised(task, sgd(), microbatches=n)
    state = start(learner, batch)
    found[n] = jax.jit(learner.step)(state, batch, jax.random.key(1))
  for n in (2, 4):
    close(found[n][0].variables.params, found[1][0].variables.params)
    values = [{k: m.value() for k, m in found[i][1].items()} for i in (n, 1)]
    close(*values)
    # The weight is that of the whole batch, not of one part.
    assert found[n][1]["loss"].weight == found[1][1]["loss"].weight


def test_a_batch_without_a_real_row_moves_nothing():
  task, batch = linear(mask=np.zeros(8, np.float32))
  learner = supervised(task, sgd(), microbatches=2)
  state = start(learner, batch)
  after, metrics = learner.step(state, batch, jax.random.key(1))
  assert same(after.variables, state.variables)
  assert metrics["loss"].weight == 0


def test_a_batch_that_does_not_divide_is_refused():
  task, batch = linear()
  learner = supervised(task, sgd(), microbatches=3)
  with pytest.raises(ValueError, match="batch of 8 .* 3 equal parts"):
    jax.eval_shape(learner.step, start(learner, batch), batch, None)


@pytest.mark.parametrize("microbatches", [1, 4])
def test_the_gradient_is_the_weighted_mean_of_numpy(microbatches):
  mask = MASK * np.asarray([1, 0.5, 2, 1, 1, 3, 1, 1], np.float32)
  task, batch = linear(mask)
  learner = supervised(task, sgd(lr=1.0), microbatches=microbatches)
  state = start(learner, batch)
  params = jax.tree.map(
    lambda x: jax.random.normal(jax.random.key(x.ndim), x.shape),
    state.variables.params,
  )
  state = state._replace(variables=state.variables._replace(params=params))
  after, metrics = learner.step(state, batch, jax.random.key(1))

  x, y = (np.asarray(batch[k], float) for k in ("x", "y"))
  (layer,) = params["layers"].values()
  w, b = (np.asarray(layer[k], float) for k in ("kernel", "bias"))
  error = x @ w + b - y
  weight = 2 * mask.sum()  # two outputs a row
  grad_w = x.T @ (2 * mask[:, None] * error) / weight
  grad_b = (2 * mask[:, None] * error).sum(0) / weight
  (moved,) = after.variables.params["layers"].values()
  np.testing.assert_allclose(moved["kernel"], w - grad_w, rtol=0, atol=1e-6)
  np.testing.assert_allclose(moved["bias"], b - grad_b, rtol=0, atol=1e-6)
  norm = np.sqrt((grad_w**2).sum() + (grad_b**2).sum())
  assert float(metrics["grad_norm"].value()) == pytest.approx(norm, rel=1e-6)
  moved_norm = np.sqrt(((w - grad_w) ** 2).sum() + ((b - grad_b) ** 2).sum())
  found = float(metrics["param_norm"].value())
  assert found == pytest.approx(moved_norm, rel=1e-6)
  # Before the update, over real rows.
  loss = (mask[:, None] * error**2).sum() / weight
  assert float(metrics["loss"].value()) == pytest.approx(loss, rel=1e-6)


def line():
  """(learner's task, batch) of y = 2 x."""
  x = np.linspace(-1, 1.5, 10, dtype=np.float32)[:, None]
  batch = {
    "x": jnp.asarray(x),
    "y": jnp.asarray(2 * x),
    "mask": jnp.ones(10),
  }
  return regression(mlp(in_features=1, out_features=1, hidden=())), batch


def slope_and_bias(params):
  (layer,) = params["layers"].values()
  return float(layer["kernel"][0, 0]), float(layer["bias"][0])


def line_gradient(w, b):
  x = np.linspace(-1, 1.5, 10)
  error = w * x + b - 2 * x
  return 2 * np.mean(error * x), 2 * np.mean(error)


def test_gradient_descent_on_a_line_is_numpys_iteration():
  task, batch = line()
  learner = supervised(task, sgd(lr=0.3))
  state, step = start(learner, batch), jax.jit(learner.step)
  w = b = 0.0
  for _ in range(40):
    assert slope_and_bias(state.variables.params) == pytest.approx(
      (w, b), abs=1e-6
    )
    state, _ = step(state, batch, jax.random.key(0))
    slope_w, slope_b = line_gradient(w, b)
    w, b = w - 0.3 * slope_w, b - 0.3 * slope_b
  assert w == pytest.approx(2, abs=1e-3)


def test_the_moving_average_is_the_one_by_hand():
  task, batch = line()
  learner = supervised(task, sgd(lr=0.3), ema=0.8)
  state, step = start(learner, batch), jax.jit(learner.step)
  average = np.asarray(slope_and_bias(state.variables.params))
  for _ in range(6):
    state, _ = step(state, batch, jax.random.key(0))
    now = np.asarray(slope_and_bias(state.variables.params))
    average = 0.8 * average + 0.2 * now
    found = slope_and_bias(learner.variables(state).params)
    assert found == pytest.approx(tuple(average), abs=1e-6)
  assert abs(average - now).max() > 0.01


def test_schedule_free_evaluates_the_average():
  """Defazio et al., arXiv:2405.15682, equations 4 to 6, beta = 0.9."""
  task, batch = line()
  optimizer = optimizers.make({"name": "schedule_free_sgd", "lr": 0.3}, 100)
  learner = supervised(task, optimizer)
  state, step = start(learner, batch), jax.jit(learner.step)
  x = z = y = np.zeros(2)
  for t in range(1, 8):
    state, _ = step(state, batch, jax.random.key(0))
    z = z - 0.3 * np.asarray(line_gradient(*y))
    x = (1 - 1 / t) * x + z / t
    y = 0.1 * z + 0.9 * x
    found = slope_and_bias(state.variables.params)
    # The average is found back from y and z by a division by beta.
    assert found == pytest.approx(tuple(y), abs=2e-6)
    found = slope_and_bias(learner.variables(state).params)
    assert found == pytest.approx(tuple(x), abs=2e-6)
  assert abs(x - y).max() > 0.01


def test_what_is_frozen_does_not_move():
  task, batch = linear(hidden=(4,))

  def init(rng, batch):
    return task.init(rng, batch)._replace(frozen={"shift": jnp.full(2, 0.5)})

  def loss(variables, batch, context):
    y = batch["y"] - variables.frozen["shift"][None]
    return task.losses["loss"](variables, {**batch, "y": y}, context)

  shifted = types.Task(init, {"loss": loss}, {})
  learner = supervised(shifted, sgd(freeze=["layers/0/kernel"]), microbatches=2)
  before = start(learner, batch)
  state = before
  for _ in range(3):
    state, _ = jax.jit(learner.step)(state, batch, jax.random.key(0))
  assert same(state.variables.frozen, {"shift": np.full(2, 0.5)})
  old, new = (s.variables.params["layers"] for s in (before, state))
  assert same(old["0"]["kernel"], new["0"]["kernel"])
  assert not same(old["0"]["bias"], new["0"]["bias"])
  assert not same(old["1"]["kernel"], new["1"]["kernel"])


def test_dropout_differs_by_key_and_by_microbatch():
  task, batch = images(dropout=0.5)
  learner = supervised(task, sgd(), microbatches=2)
  state, step = start(learner, batch), jax.jit(learner.step)
  keys = [jax.random.fold_in(jax.random.key(0), k) for k in (0, 0, 1)]
  means = [step(state, batch, key)[1]["loss"] for key in keys]
  assert means[0].value() == means[1].value() != means[2].value()
  parts = [jax.tree.map(lambda x, i=i: x[i::2], batch) for i in (0, 1)]
  totals = [
    task.losses["loss"](
      state.variables,
      part,
      types.Context(jax.random.fold_in(keys[0], i), 0, True),
    )[0].total
    for i, part in enumerate(parts)
  ]
  assert float(means[0].total) == pytest.approx(float(sum(totals)), rel=1e-6)


@pytest.mark.parametrize("schedule", ["constant", "linear"])
def test_loss_and_rate_are_those_of_the_update(schedule):
  task, batch = line()
  learner = supervised(task, sgd(lr=0.3, schedule=schedule))
  state, step = start(learner, batch), jax.jit(learner.step)
  for k in range(3):
    before, _ = task.losses["loss"](
      state.variables, batch, types.Context(None, 0, True)
    )
    state, metrics = step(state, batch, jax.random.key(0))
    assert float(metrics["loss"].value()) == pytest.approx(
      float(before.value()), rel=1e-6
    )
    rate = 0.3 * (1 - k / 100 if schedule == "linear" else 1)
    found = float(metrics["learning_rate"].value())
    assert found == pytest.approx(rate, rel=1e-6)


@pytest.mark.parametrize(
  ("make", "task", "settings", "message"),
  [
    (supervised, players, {}, "one loss.*discriminator.*generator"),
    (supervised, linear, {"microbatches": 0}, "microbatches=0"),
    (supervised, linear, {"ema": 1.0}, "ema=1.0"),
    (adversarial, linear, {}, "needs several losses"),
    (adversarial, players, {"discriminator_steps": 0}, "steps=0"),
    (adversarial, players, {"ema": -0.1}, "ema=-0.1"),
    (diloco, players, {"workers": 2, "local_steps": 2}, "one loss"),
    (diloco, linear, {"workers": 0, "local_steps": 2}, "workers=0"),
    (diloco, linear, {"workers": 2, "local_steps": 0}, "local_steps=0"),
    (
      diloco,
      linear,
      {"workers": 2, "local_steps": 2, "outer_momentum": 1.0},
      "outer_momentum=1.0",
    ),
  ],
)
def test_a_wrong_task_or_value_is_named(make, task, settings, message):
  with pytest.raises(ValueError, match=message):
    make(task()[0], sgd(), **settings)


def test_a_coupled_loss_is_refused_with_microbatches():
  task = linear()[0]._replace(coupled=True, name="contrast")
  supervised(task, sgd())
  for make in (supervised, functools.partial(diloco, workers=2, local_steps=2)):
    with pytest.raises(UserError, match="microbatches=2: .* task contrast"):
      make(task, sgd(), microbatches=2)


@pytest.mark.parametrize("microbatches", [1, 2])
def test_statistics_of_microbatches_are_noted(microbatches):
  config = conv_fashion_mnist.get_config("smoke")
  config.model.batchnorm = True
  config.learner.microbatches = microbatches
  notes = []
  build.run(config, None, say=notes.append)
  found = [note for note in notes if "microbatches=2: the model's" in note]
  assert len(found) == microbatches - 1


@pytest.mark.parametrize("moving", PLAYERS)
def test_only_the_player_with_a_rate_moves(moving):
  task, batch = players()
  lr = [(p, 0.1 if p == moving else 0.0) for p in reversed(PLAYERS)]
  learner = adversarial(task, sgd(lr=lr), discriminator_steps=2)
  before = start(learner, batch)
  after, _ = jax.jit(learner.step)(before, batch, jax.random.key(0))
  for player in PLAYERS:
    old, new = (s.variables.params[player] for s in (before, after))
    assert same(old, new) == (player != moving)


def hand_play(task, player, variables, opt_state, batch, rng, lr):
  """One update of `player` by optax alone."""

  def loss(own):
    params = {**variables.params, player: own}
    mean, _ = task.losses[player](
      variables._replace(params=params), batch, types.Context(rng, 0, True)
    )
    return mean.total / mean.weight

  own = variables.params[player]
  value, grads = jax.value_and_grad(loss)(own)
  updates, opt_state = optax.adam(lr, b1=0.5).update(grads, opt_state, own)
  params = {**variables.params, player: optax.apply_updates(own, updates)}
  return variables._replace(params=params), opt_state, value


def test_adversarial_is_the_loop_by_hand():
  task, batch = players(r1=1.0)
  rates = {"discriminator": 4e-3, "generator": 1e-3}
  optimizer = optimizers.make(
    {"name": "adam", "b1": 0.5, "lr": list(rates.items())}, 100
  )
  learner = adversarial(task, optimizer, discriminator_steps=2, ema=0.5)
  state, step = start(learner, batch), jax.jit(learner.step)
  variables, average = state.variables, state.variables.params["generator"]
  opt_states = {
    p: optax.adam(rates[p], b1=0.5).init(variables.params[p]) for p in PLAYERS
  }
  play = jax.jit(functools.partial(hand_play, task), static_argnums=0)
  for k in range(2):
    rng = jax.random.fold_in(jax.random.key(5), k)
    turns = [
      ("discriminator", jax.tree.map(lambda x: x[0::2], batch), 1),
      ("discriminator", jax.tree.map(lambda x: x[1::2], batch), 2),
      ("generator", batch, 0),
    ]
    values = {}
    for player, part, fold in turns:
      variables, opt_states[player], values[f"{player}_loss"] = play(
        player,
        variables,
        opt_states[player],
        part,
        jax.random.fold_in(rng, fold),
        rates[player],
      )
    average = jax.tree.map(
      lambda a, b: 0.5 * a + 0.5 * b, average, variables.params["generator"]
    )
    state, metrics = step(state, batch, rng)
    # Adam divides by |g|: where g is near 0 rounding shows, up to lr * 1e-3.
    close(state.variables.params, variables.params, atol=4e-6)
    # What is reported is the last update of each player, before it.
    for name, value in values.items():
      assert float(metrics[name].value()) == pytest.approx(
        float(value), rel=1e-5
      )
    # Each has moments of its own, moved as often as it played.
    for player, plays in (("discriminator", 2), ("generator", 1)):
      assert int(state.opt_state[player].count) == plays * (k + 1)
      (adam, *_) = opt_states[player]
      found = jax.tree.leaves(state.opt_state[player].groups)
      for wanted in jax.tree.leaves((adam.mu, adam.nu)):
        assert any(
          x.shape == wanted.shape and np.allclose(x, wanted, 1e-3, 1e-6)
          for x in found
        )
    evaluated = learner.variables(state).params
    close(evaluated["generator"], average, atol=4e-6)
    assert same(
      evaluated["discriminator"], state.variables.params["discriminator"]
    )
    assert not same(evaluated["generator"], state.variables.params["generator"])
