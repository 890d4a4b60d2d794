"""Histograms against NumPy's, and a run with them against one without."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from train import build, loop, types
from train.learners.supervised import supervised
from train.measuring import histograms, timing
from train.optimization import optimizers
from train.workdir import metrics


@pytest.mark.parametrize(
  "values",
  [
    np.random.default_rng(0).normal(size=(7, 11)),
    np.arange(64.0),
    np.full((3, 3), 2.5),
    np.array([1.0, np.nan, -2.0, np.inf, 5.0]),
    np.array([-3e38, 3e38, 0.0]),
    np.zeros((0,)),
    np.full(4, np.nan),
  ],
)
def test_a_histogram_is_numpys(values):
  values = values.astype(np.float32)
  found = jax.jit(histograms.histogram)(values)
  real = values[np.isfinite(values)].astype(np.float64)
  low, high = (real.min(), real.max()) if real.size else (0, 0)
  assert (found.low, found.high) == (low, high)
  assert found.counts.sum() == real.size
  if low < high:
    counts, _ = np.histogram(real, histograms.BINS)
    # A value within rounding of an edge may fall on either side of it.
    assert np.abs(np.cumsum(found.counts - counts)).max() <= 1
  np.testing.assert_allclose(found.total, real.sum(), rtol=1e-5, atol=1e-5)
  with np.errstate(over="ignore"):
    squares = (real**2).sum().astype(np.float32)
  np.testing.assert_allclose(found.squares, squares, rtol=1e-5)


def test_leaves_are_named_by_their_paths():
  tree = {"a": {"w": jnp.ones(3), "n": jnp.arange(3)}, "b": [jnp.ones(2)]}
  found = histograms.of_tree(tree)
  assert {k: int(v.counts.sum()) for k, v in found.items()} == {
    "a/w": 3,
    "b/0": 2,
  }


@pytest.mark.parametrize("settings", [{}, {"microbatches": 2}])
@pytest.mark.parametrize("scale", [1.0, "dynamic"])
def test_supervised_offers_the_gradients_of_its_update(settings, scale):
  """With SGD of rate 1, parameters minus updated ones are the gradients."""

  def loss(variables, batch, context):
    assert context.train
    noise_B = jax.random.uniform(context.rng, batch["x"].shape[:1])
    predicted_B = batch["x"] @ variables.params["w"] + noise_B
    mean = types.mean_of((predicted_B - batch["y"]) ** 2, batch["mask"])
    return mean, types.Aux({}, {})

  rng = np.random.default_rng(0)
  batch = {
    "x": jnp.asarray(rng.normal(size=(4, 3)), jnp.float32),
    "y": jnp.asarray(rng.normal(size=4), jnp.float32),
    "mask": jnp.asarray([1.0, 1, 0, 1]),
  }
  task = types.Task(
    lambda rng, batch: types.Variables({"w": jnp.ones(3)}, {}),
    {"loss": loss},
    {},
  )
  optimizer = optimizers.make({"name": "sgd", "lr": 1.0}, 10)
  learner = supervised(task, optimizer, loss_scale=scale, **settings)
  state = learner.init(jax.random.key(0), batch)
  key = jax.random.key(1)
  found = learner.gradients(state, batch, key)
  after, shown = learner.step(state, batch, key)
  wanted = state.variables.params["w"] - after.variables.params["w"]
  np.testing.assert_allclose(found["w"], wanted, rtol=1e-5, atol=1e-6)
  norm = optax.tree.norm(found)
  np.testing.assert_allclose(norm, shown["grad_norm"].value(), rtol=1e-6)


def run_of(workdir, every, **keys):
  """(rows of metrics.jsonl without the clock's, lines) of a tiny run."""
  from configs.text import sft_chat

  lines = []
  config = sft_chat.get_config("smoke")
  config.update(total_steps=4, log_every_steps=1, evals={}, **keys)
  config.model.layers = 1
  config.data.update(source="fake:conversations?turns=2", seq_len=64)
  config.writers = [dict(name="tensorboard", histograms_every=every)]
  run = build.run(config, str(workdir), say=lines.append)
  # Nothing is called, let alone compiled, where no histogram is wanted.
  assert (run.observe is build._nothing) == (every == 0)
  last = list(loop.fit(run))[-1]
  assert last.step == 4
  rows = [
    {k: v for k, v in row.items() if k not in timing.CLOCK_KEYS}
    for row in metrics.read_metrics(str(workdir))
  ]
  return rows, lines


@pytest.mark.slow
def test_histograms_change_no_figure_of_a_run(tmp_path):
  from tensorboard.backend.event_processing import event_accumulator

  without, _ = run_of(tmp_path / "without", 0)
  with_them, lines = run_of(tmp_path / "with", 2)
  assert with_them == without and len(without) == 6
  assert not [line for line in lines if "writer" in line]
  events = event_accumulator.EventAccumulator(
    str(tmp_path / "with"), {"histograms": 0}
  )
  events.Reload()
  tags = events.Tags()["histograms"]
  kinds = [
    {t.partition("/")[2] for t in tags if t.startswith(f"{kind}/")}
    for kind in ("params", "gradients")
  ]
  assert kinds[0] == kinds[1] != set()
  # The gradients' squares sum to the norm that the run reports at that step.
  squares = 0.0
  for tag in tags:
    found = events.Histograms(tag)
    assert [each.step for each in found] == [2, 4]
    if tag.startswith("gradients/"):
      squares += found[0].histogram_value.sum_squares
  norm = without[1]["train/grad_norm"]
  np.testing.assert_allclose(squares**0.5, norm, rtol=1e-4)
