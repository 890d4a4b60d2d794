"""What is read of a checkpoint to serve or evaluate a run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.textbook import linear_regression
from train import assembly, build, loop, trained
from train.checkpointing import checkpoint, digests

SGD = dict(name="sgd", lr=0.1, momentum=0.9)


def config_of(learner, optimizer):
  config = linear_regression.get_config("smoke")
  config.model = dict(name="mlp", hidden=[3])
  config.learner = dict(name="supervised", **learner)
  config.optimizer = optimizer
  config.total_steps, config.evals, config.writers = 3, {}, []
  return config


@pytest.mark.parametrize(
  "function, used",
  [
    (lambda t: t["a"] + jnp.sum(t["b"]), "a b"),
    (lambda t: {"x": t["a"], "y": 0 * jnp.ones(2)}, "a"),
    (lambda t: jax.jit(lambda u: (u["a"] * 2, u["b"] * 2))(t)[1], "b"),
    (lambda t: jax.lax.cond(t["c"][0] > 0, jnp.sin, jnp.cos, t["a"]), "a c"),
    (lambda t: jnp.zeros(3), ""),
  ],
)
def test_the_leaves_that_a_function_reads(function, used):
  tree = {key: jax.ShapeDtypeStruct((2,), np.float32) for key in "abc"}
  assert trained.inputs_of(function, tree) == set(used.split())


@pytest.mark.parametrize(
  "learner, optimizer, beside",
  [
    ({}, SGD, "variables/params/"),
    (dict(ema=0.9), SGD, "extra/ema/"),
    ({}, dict(name="schedule_free_adamw", lr=0.1), "opt_state/"),
  ],
)
def test_only_what_the_variables_depend_on_is_read(
  tmp_path, monkeypatch, learner, optimizer, beside
):
  config = config_of(learner, optimizer)
  list(loop.fit(build.run(config, str(tmp_path), say=lambda line: None)))
  state = trained.load_state(str(tmp_path))
  taken = []
  restore = checkpoint.restore_last

  def spied(*args, needed, **kwargs):
    taken.extend(needed)
    return restore(*args, needed=needed, **kwargs)

  monkeypatch.setattr(checkpoint, "restore_last", spied)
  found = trained.load(str(tmp_path))
  # As the learner computes them from the whole state.
  expected = found.parts.learner.variables(state)
  assert digests.of(found.variables) == digests.of(expected)
  weights = sum(x.size for x in jax.tree.leaves(state.variables))
  read = sum(x.size for p, x in digests.named(state) if p in taken)
  assert any(path.startswith(beside) for path in taken)
  # A schedule-free optimizer evaluates what two sets of arrays give.
  assert read <= weights + (weights + 2) * (beside == "opt_state/")


def test_what_was_not_read_takes_no_memory(tmp_path):
  config = config_of({}, SGD)
  list(loop.fit(build.run(config, str(tmp_path), say=lambda line: None)))
  shapes = assembly.state_of(assembly.experiment(config))[1]
  manager = checkpoint.open_manager(str(tmp_path / "checkpoints"))
  state = checkpoint.restore(manager, shapes, 3, needed={"step"}).state
  assert int(state.step) == 3
  assert all(
    set(x.strides) <= {0} for x in jax.tree.leaves(state.variables.params)
  )
