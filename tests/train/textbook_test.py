"""The textbook's examples: formulas by hand, and what they should reach."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.textbook import (
  gradient_descent,
  perceptron,
  relu_three_points,
)
from models.tabular.mlp import mlp
from train import build, loop
from train.learners.supervised import supervised
from train.optimization import optimizers
from train.tasks.regression import regression


def reports_of(config):
  run = build.run(config, None, say=lambda line: None)
  return list(loop.fit(run))


def test_one_step_of_backpropagation_is_the_one_worked_by_hand():
  """1 - 10 - 1, relu; dL/dy = 2 (y - t) / 3, back through both layers."""
  x = np.array([[1.0], [2.0], [3.0]])
  t = np.array([[2.0], [4.0], [6.0]])
  model = mlp(in_features=1, out_features=1, hidden=(10,), activation="relu")
  optimizer = optimizers.make(dict(name="sgd", lr=0.01), 1)
  learner = supervised(regression(model), optimizer)
  batch = {
    "x": jnp.float32(x),
    "y": jnp.float32(t),
    "mask": jnp.ones(3),
  }
  state = learner.init(jax.random.key(1), batch)
  # Biases that are not 0, so that units change sides among the points.
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda p: p + jnp.float32(rng.normal(size=p.shape)), state.variables.params
  )
  state = state._replace(variables=state.variables._replace(params=params))
  first, last = (
    {k: np.asarray(v, float) for k, v in params["layers"][i].items()}
    for i in ("0", "1")
  )
  before = x @ first["kernel"] + first["bias"]
  hidden = np.maximum(before, 0)
  assert 0 < (before > 0).mean() < 1
  y = hidden @ last["kernel"] + last["bias"]
  d_y = 2 * (y - t) / 3
  d_before = (d_y @ last["kernel"].T) * (before > 0)
  wanted = {
    "0": {
      "kernel": first["kernel"] - 0.01 * x.T @ d_before,
      "bias": first["bias"] - 0.01 * d_before.sum(0),
    },
    "1": {
      "kernel": last["kernel"] - 0.01 * hidden.T @ d_y,
      "bias": last["bias"] - 0.01 * d_y.sum(0),
    },
  }
  after, metrics = learner.step(state, batch, jax.random.key(0))
  found = after.variables.params["layers"]
  for layer, leaves in wanted.items():
    for name, value in leaves.items():
      np.testing.assert_allclose(found[layer][name], value, rtol=0, atol=1e-6)
  np.testing.assert_allclose(
    metrics["loss"].value(), ((y - t) ** 2).mean(), rtol=1e-6
  )


def test_three_points_give_8_at_4():
  error = reports_of(relu_three_points.get_config())[-1].scalars["at_4/loss"]
  assert np.sqrt(error) < 1e-3


@pytest.mark.parametrize(
  ("function", "converges"), [("and", True), ("or", True), ("xor", False)]
)
def test_the_perceptron_finds_a_line_where_there_is_one(function, converges):
  config = perceptron.get_config(function)
  accuracy = reports_of(config)[-1].scalars["fit/accuracy"]
  assert (accuracy == 1.0) == converges


def test_the_perceptron_is_rosenblatts_rule():
  """Against the rule in NumPy, over the same order of the four points."""
  config = perceptron.get_config("and")
  config.total_steps = 12
  run = build.run(config, None, say=lambda line: None)
  w, bias = np.zeros(2), 0.0
  batches, state = run.batches(0), run.init()
  for step in range(12):
    batch = next(batches)
    x, sign = np.asarray(batch["x"])[0], 2 * int(batch["label"][0]) - 1
    if sign * (x @ w + bias) <= 0:
      w, bias = w + sign * x, bias + sign
    state, _ = run.learner.step(state, batch, jax.random.key(step))
  batches.close()
  layer = state.variables.params["layers"]["0"]
  np.testing.assert_allclose(layer["kernel"][:, 0], w, atol=1e-6)
  np.testing.assert_allclose(layer["bias"], [bias], atol=1e-6)
  assert w.any()


@pytest.mark.slow
@pytest.mark.parametrize("size", ["batch", "minibatch", "stochastic"])
def test_gradient_descent_finds_the_line(size):
  """The noise has the variance 0.01, below which no held-out loss falls far."""
  config = gradient_descent.get_config(size)
  if size == "batch":
    config.total_steps = 60
  losses = [
    r.scalars["val/loss"] for r in reports_of(config) if "val/loss" in r.scalars
  ]
  assert losses[-1] < 0.02
  # One pass of the whole split is one step; of single examples, 108.
  assert (losses[0] < 0.02) == (size == "stochastic")
