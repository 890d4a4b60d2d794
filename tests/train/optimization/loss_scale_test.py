"""Loss scaling against sequences by hand, PyTorch's, and unscaled updates."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.language import lm_stdlib
from models import Model
from train import build, loop, types
from train.learners.supervised import supervised
from train.optimization import optimizers, updates
from train.tasks.regression import regression


def slope_task():
  """The loss is the mean of w * x, whose gradient is the mean of x."""

  def loss(variables, batch, context):
    mean = types.mean_of(variables.params["w"] * batch["x"])
    seen = {"steps": variables.model_state["steps"] + 1}
    return mean, types.Aux(seen, {"twice": types.mean_of(2 * batch["x"])})

  return types.Task(
    lambda rng, batch: types.Variables(
      {"w": jnp.ones(())}, {"steps": jnp.zeros(())}
    ),
    {"loss": loss},
    {},
  )


def adam(**settings):
  return optimizers.make(
    {"name": "adam", "lr": 0.1, "schedule": "linear", **settings}, 100
  )


def xs(value):
  return {"x": jnp.full(4, value, jnp.float32)}


# Good and bad gradients, and the scale after each, growing after three good.
SEQUENCE = [
  (True, 2.0**16),
  (True, 2.0**16),
  (True, 2.0**17),
  (True, 2.0**17),
  (False, 2.0**16),
  (False, 2.0**15),
  (True, 2.0**15),
  (True, 2.0**15),
  (False, 2.0**14),  # the two good ones before it no longer count
  (True, 2.0**14),
  (True, 2.0**14),
  (True, 2.0**15),
]


def test_the_scale_is_the_one_by_hand(monkeypatch):
  monkeypatch.setattr(updates, "GROWTH_STEPS", 3)
  learner = supervised(slope_task(), adam(), loss_scale="dynamic")
  state = jax.jit(learner.init)(jax.random.key(0), xs(1.0))
  step, skipped, before = jax.jit(learner.step), 0, 2.0**16
  for k, (good, after) in enumerate(SEQUENCE):
    state, metrics = step(state, xs(1.0 if good else np.inf), None)
    skipped += not good
    assert float(metrics["loss_scale"].value()) == before
    assert float(metrics["skipped_steps"].value()) == skipped
    assert float(state.extra["loss_scale"].scale) == after
    assert int(state.step) == k + 1
    # What counts updates counts those that were made.
    assert int(state.opt_state.count) == k + 1 - skipped
    before = after


@pytest.mark.parity
def test_the_scale_is_pytorchs():
  torch = pytest.importorskip("torch")
  scaler = torch.amp.GradScaler("cpu", growth_interval=3)
  w = torch.nn.Parameter(torch.ones(()))
  descent = torch.optim.SGD([w], lr=0.1)
  for good, after in SEQUENCE:
    descent.zero_grad()
    scaler.scale(w * (1.0 if good else np.inf)).backward()
    scaler.step(descent)
    scaler.update()
    assert scaler.get_scale() == after


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_an_overflow_skips_and_changes_nothing_else(bad):
  learner = supervised(slope_task(), adam(), loss_scale="dynamic", ema=0.9)
  step = jax.jit(learner.step)
  state = jax.jit(learner.init)(jax.random.key(0), xs(1.0))
  state, _ = step(state, xs(1.0), None)
  skipped, metrics = step(state, xs(bad), None)
  assert int(skipped.step) == 2
  for part in ("variables", "opt_state"):
    old, new = (jax.tree.leaves(getattr(s, part)) for s in (state, skipped))
    for a, b in zip(old, new, strict=True):
      np.testing.assert_array_equal(a, b)
  np.testing.assert_array_equal(
    skipped.extra["ema"]["w"], state.extra["ema"]["w"]
  )
  # Nothing that would stop the loop; what is not finite weighs nothing.
  for name in ("loss", "twice", "grad_norm"):
    assert metrics[name] == types.Mean(0, 0)
  assert metrics["param_norm"].value() == abs(state.variables.params["w"])
  # And on as if it had not been.
  straight, _ = step(state, xs(2.0), None)
  after, metrics = step(skipped, xs(2.0), None)
  assert after.variables == straight.variables
  assert after.variables.params["w"] != state.variables.params["w"]
  assert metrics["loss"].weight == 4


def half(x):
  return x.astype(jnp.float16)


def tiny_gradients():
  """A linear model in float16 whose gradients are about 1e-8.

  The least that float16 holds is 6e-8.
  """

  def apply(params, model_state, x, **_):
    return (half(x) @ half(params["w"])).astype(jnp.float32), model_state

  plain = regression(Model(lambda rng: ({"w": jnp.zeros((3, 1))}, {}), apply))

  def loss(*args):
    mean, aux = plain.losses["loss"](*args)
    return mean._replace(total=1e-8 * mean.total), aux

  rng = np.random.default_rng(0)
  x = rng.uniform(-0.5, 0.5, (8, 3))
  batch = {
    "x": jnp.asarray(x, jnp.float32),
    "y": jnp.asarray(x @ [[1.0], [-0.5], [0.5]], jnp.float32),
    "mask": jnp.ones(8),
  }
  return plain._replace(losses={"loss": loss}), batch


def test_what_underflows_without_scaling_learns_with_it():
  task, batch = tiny_gradients()
  sgd = optimizers.make({"name": "sgd", "lr": 0.5 / 1e-8}, 100)
  found = {}
  for scale in (1.0, 2.0**16, "dynamic"):
    learner = supervised(task, sgd, loss_scale=scale)
    state = jax.jit(learner.init)(jax.random.key(0), batch)
    step = jax.jit(learner.step)
    for _ in range(100):
      state, _ = step(state, batch, None)
    found[scale] = state.variables.params["w"]
  np.testing.assert_array_equal(found[1.0], np.zeros((3, 1)))
  for scale in (2.0**16, "dynamic"):
    # x, w, the prediction and its gradient have 11 bits.
    np.testing.assert_allclose(
      found[scale], [[1.0], [-0.5], [0.5]], rtol=0, atol=1e-2
    )


@pytest.mark.parametrize("microbatches", [1, 4])
@pytest.mark.parametrize("scale", [2.0**10, "dynamic"])
def test_in_float32_scaling_changes_nothing(scale, microbatches):
  """Also with ragged masks, one part of which is empty."""
  task, batch = tiny_gradients()
  task = regression(
    Model(
      lambda rng: ({"w": jnp.ones((3, 1))}, {}),
      lambda params, state, x, **_: (x @ params["w"], state),
    )
  )
  mask = jnp.asarray([0, 1, 2, 1, 0, 0, 1, 0.5])
  batch = {**batch, "mask": mask}
  sgd = optimizers.make({"name": "sgd", "lr": 0.5}, 100)
  found = []
  for settings in ({}, {"loss_scale": scale}):
    learner = supervised(task, sgd, microbatches=microbatches, **settings)
    state = learner.init(jax.random.key(0), batch)
    state, metrics = jax.jit(learner.step)(state, batch, jax.random.key(1))
    norm = metrics["grad_norm"].value()
    found.append((state.variables.params["w"], metrics["loss"], norm))
  for a, b in zip(*map(jax.tree.leaves, found), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-6)


def test_without_a_scale_the_program_is_the_same():
  task, batch = tiny_gradients()
  texts = []
  for settings in ({}, {"loss_scale": 1.0}, {"loss_scale": 1}):
    learner = supervised(task, adam(), **settings)
    state = learner.init(jax.random.key(0), batch)
    assert state.extra == {}
    text = jax.jit(learner.step).lower(state, batch, None).as_text()
    texts.append(text)
  assert texts[0] == texts[1] == texts[2]
  # The two numbers that say whether an update is dropped, and no array.
  found = re.findall(r"is_finite .*", texts[0])
  assert len(found) == 2 and all("(tensor<f32>)" in line for line in found)


def test_what_overflows_at_scale_1_is_told():
  learner = supervised(slope_task(), adam(), loss_scale="dynamic")
  state = learner.init(jax.random.key(0), xs(1.0))
  step = jax.jit(learner.step)
  for _ in range(16):
    state, metrics = step(state, xs(np.inf), None)
    assert metrics["loss"].weight == 0
  assert state.extra["loss_scale"].scale == 1
  state, metrics = step(state, xs(np.inf), None)
  assert not np.isfinite(metrics["loss"].value())
  assert state.variables.params["w"] == 1


@pytest.mark.parametrize("scale", [0, -1.0, "dynamik", True, float("inf")])
def test_a_wrong_scale_is_named(scale):
  with pytest.raises(ValueError, match=f"loss_scale={scale!r}"):
    supervised(slope_task(), adam(), loss_scale=scale)


@pytest.mark.slow
def test_a_transformer_in_float16_trains_by_the_loop():
  config = lm_stdlib.get_config("smoke")
  config.total_steps = 3
  config.evals = {}
  config.model.dtype = "float16"
  config.learner.loss_scale = "dynamic"
  reports = list(loop.fit(build.run(config, None)))
  # The first scale may be too great; each overflow has halved the next.
  skipped = [0] + [r.scalars["train/skipped_steps"] for r in reports]
  scales = [r.scalars["train/loss_scale"] for r in reports]
  assert skipped[-1] <= 2
  assert scales == [2.0 ** (16 - n) for n in skipped[:-1]]
  # A uniform guess among 256 bytes.
  assert reports[0].scalars["train/loss"] == pytest.approx(
    np.log(256), rel=0.05
  )
