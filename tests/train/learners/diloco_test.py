"""DiLoCo against its algorithm in NumPy, and over slices against one device."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiers import slow_but

from configs.language import lm_stdlib
from configs.textbook import linear_regression
from models import Model
from train import build, loop, types
from train.checkpointing import checkpoint
from train.learners.diloco import diloco
from train.learners.supervised import supervised
from train.optimization import optimizers
from train.planning import collectives, hlo
from train.tasks.regression import regression

W, H = 2, 3
OUTER = {"outer_lr": 0.7, "outer_momentum": 0.9}


def line_task():
  """Linear regression of three inputs, started away from zero."""

  def apply(params, model_state, x, **_):
    return x @ params["w"], model_state

  return regression(Model(lambda rng: ({"w": jnp.ones((3, 1))}, {}), apply))


def batch_of(seed, mask=None, rows=8):
  rng = np.random.default_rng(seed)
  return {
    "x": jnp.asarray(rng.normal(size=(rows, 3)), jnp.float32),
    "y": jnp.asarray(rng.normal(size=(rows, 1)), jnp.float32),
    "mask": jnp.asarray(np.ones(rows) if mask is None else mask, jnp.float32),
  }


def run(learner, batches):
  """The state after each step, and its metrics."""
  state = jax.jit(learner.init)(jax.random.key(0), batches[0])
  step, found = jax.jit(learner.step), []
  for k, batch in enumerate(batches):
    state, metrics = step(state, batch, jax.random.key(k))
    found.append((state, metrics))
  return found


class Adam:
  """Kingma and Ba, algorithm 1, of one array in float64."""

  def __init__(self, b1=0.9, b2=0.9, eps=1e-2, lr=0.1):
    self.b1, self.b2, self.eps, self.lr = b1, b2, eps, lr
    self.m = self.v = self.t = 0

  def step(self, w, g):
    self.t += 1
    self.m = self.b1 * self.m + (1 - self.b1) * g
    self.v = self.b2 * self.v + (1 - self.b2) * g**2
    m = self.m / (1 - self.b1**self.t)
    return w - self.lr * m / (
      np.sqrt(self.v / (1 - self.b2**self.t)) + self.eps
    )


def test_it_is_algorithm_1_in_numpy():
  mask = [1, 0, 1, 1, 0, 1, 1, 0]  # three rows of one worker, two of the other
  batches = [batch_of(k, mask) for k in range(3 * H + 1)]
  optimizer = optimizers.make(
    {"name": "adam", "lr": 0.1, "b2": 0.9, "eps": 1e-2}, 100
  )
  learner = diloco(line_task(), optimizer, workers=W, local_steps=H, **OUTER)
  found = run(learner, batches)

  theta, buffer = np.ones((3, 1)), 0
  workers, inner = [theta] * W, [Adam() for _ in range(W)]
  for k, batch in enumerate(batches):
    x, y, m = (np.asarray(batch[key], float) for key in ("x", "y", "mask"))
    errors = []
    for i in range(W):
      rows = slice(i * 4, (i + 1) * 4)
      own, error = m[rows, None], x[rows] @ workers[i] - y[rows]
      gradient = 2 * x[rows].T @ (own * error) / own.sum()
      workers[i] = inner[i].step(workers[i], gradient)
      errors.append((own * error**2).sum())
    if (k + 1) % H == 0:
      delta = np.mean([theta - w for w in workers], axis=0)
      # Nesterov momentum as Sutskever et al. 2013 in PyTorch's form.
      buffer = 0.9 * buffer + delta
      theta = theta - 0.7 * (delta + 0.9 * buffer)
      workers = [theta] * W
    state, metrics = found[k]
    np.testing.assert_allclose(
      learner.variables(state).params["w"], theta, rtol=0, atol=1e-6
    )
    np.testing.assert_allclose(
      state.extra["workers"]["params"]["w"], workers, rtol=0, atol=1e-6
    )
    # Merged by the weights of rows, not a mean of the workers' means.
    assert metrics["loss"].weight == 5
    assert float(metrics["loss"].value()) == pytest.approx(sum(errors) / 5)
  assert np.abs(workers[0] - workers[1]).max() > 0.01  # one step after meeting


def test_workers_have_no_copies_of_what_is_frozen():
  """With "base" frozen at 0 it is the run without it."""

  def apply(params, model_state, x, **_):
    return x @ (params["w"] + params["base"]), model_state

  def init(rng):
    return {"base": jnp.zeros((3, 1)), "w": jnp.ones((3, 1))}, {}

  both = regression(Model(init, apply))
  batches, ends = [batch_of(k) for k in range(2 * H)], []
  for task, freeze in ((line_task(), []), (both, ["^base"])):
    optimizer = optimizers.make({"name": "sgd", "lr": 0.1, "freeze": freeze}, 9)
    learner = diloco(task, optimizer, workers=W, local_steps=H, **OUTER)
    ends.append(run(learner, batches)[-1][0])
  plain, frozen = ends
  for a, b in zip(
    jax.tree.leaves(plain.extra), jax.tree.leaves(frozen.extra), strict=True
  ):
    np.testing.assert_allclose(a, b, rtol=1e-6)
  params = frozen.variables.params
  np.testing.assert_allclose(params["w"], plain.variables.params["w"], 1e-6)
  assert not params["base"].any()


def test_one_step_of_sgd_each_is_data_parallelism_exactly():
  """Integers and powers of two, which float32 adds without rounding."""
  rng = np.random.default_rng(0)
  batches = [
    {
      "x": jnp.asarray(rng.integers(-2, 3, (8, 3)), jnp.float32),
      "y": jnp.asarray(rng.integers(-2, 3, (8, 1)), jnp.float32),
      "mask": jnp.ones(8),
    }
    for _ in range(3)
  ]
  sgd = optimizers.make({"name": "sgd", "lr": 1 / 8}, 100)
  apart = diloco(
    line_task(), sgd, workers=4, local_steps=1, outer_lr=1.0, outer_momentum=0.0
  )
  together = supervised(line_task(), sgd)
  for (a, _), (b, _) in zip(
    run(apart, batches), run(together, batches), strict=True
  ):
    np.testing.assert_array_equal(
      a.variables.params["w"], b.variables.params["w"]
    )
    np.testing.assert_array_equal(
      a.extra["workers"]["params"]["w"], np.stack(4 * [b.variables.params["w"]])
    )


def test_statistics_are_averaged_when_the_workers_meet():
  def loss(variables, batch, context):
    mean = types.mean_of(batch["x"] * variables.params["w"])
    seen = {
      "sum": variables.model_state["sum"] + batch["x"].sum(),
      "steps": variables.model_state["steps"] + 1,
    }
    return mean, types.Aux(seen, {})

  task = types.Task(
    lambda rng, batch: types.Variables(
      {"w": jnp.ones(())}, {"sum": jnp.zeros(()), "steps": jnp.int32(0)}
    ),
    {"loss": loss},
    {},
  )
  sgd = optimizers.make({"name": "sgd", "lr": 0.1}, 100)
  learner = diloco(task, sgd, workers=2, local_steps=2)
  first, second = run(learner, 2 * [{"x": jnp.arange(4.0)}])
  assert first[0].variables.model_state == {"sum": 0, "steps": 0}
  found = first[0].extra["workers"]["model_state"]
  np.testing.assert_array_equal(found["sum"], [0 + 1, 2 + 3])
  state = second[0].variables.model_state
  assert state == {"sum": 6, "steps": 2} and state["steps"].dtype == jnp.int32


def test_a_worker_that_overflows_skips_alone():
  sgd = optimizers.make({"name": "sgd", "lr": 0.1}, 100)
  learner = diloco(
    line_task(), sgd, workers=2, local_steps=5, loss_scale="dynamic"
  )
  batch = batch_of(0)
  batch["x"] = batch["x"].at[5, 0].set(jnp.inf)  # a row of the second worker
  ((state, metrics),) = run(learner, [batch])
  first, second = state.extra["workers"]["params"]["w"]
  assert np.isfinite(first).all() and np.abs(first - 1).max() > 1e-3
  np.testing.assert_array_equal(second, np.ones((3, 1)))
  scales = state.extra["workers"]["loss_scale"].scale
  np.testing.assert_array_equal(scales, [2.0**16, 2.0**15])
  assert metrics["loss"].weight == 4  # the four rows of the first
  assert all(np.isfinite(m.total) for m in metrics.values())


def test_workers_that_do_not_divide_are_named():
  sgd = optimizers.make({"name": "sgd", "lr": 0.1}, 100)
  learner = diloco(line_task(), sgd, workers=3, local_steps=1)
  with pytest.raises(ValueError, match="workers=3 must divide the batch of 8"):
    run(learner, [batch_of(0)])


# Over the axis "slice" of a mesh


def config_on(mesh, rules=((".*", "fsdp"),), steps=10, workers=4):
  config = lm_stdlib.get_config("smoke")
  config.total_steps = steps
  config.batch_size = 16
  config.mesh = mesh
  config.sharding = list(rules)
  config.evals = {}
  config.learner = dict(name="diloco", workers=workers, local_steps=H)
  return config


def losses(config, devices, monkeypatch):
  with monkeypatch.context() as patch:
    patch.setattr(jax, "devices", lambda *a: devices)
    made = build.run(config, None)
    return [r.scalars["train/loss"] for r in loop.fit(made)], made


@pytest.fixture(scope="module")
def one_device():
  with pytest.MonkeyPatch.context() as patch:
    found, _ = losses(config_on({"data": 1}, ()), jax.devices()[:1], patch)
  assert len(found) == 10
  return found


@pytest.mark.slow
@pytest.mark.parametrize(
  "mesh",
  slow_but(
    [{"slice": 4, "fsdp": 2}],
    [{"slice": 2, "data": 2, "fsdp": 2}, {"slice": 4, "fsdp": 2}],
  ),
  ids=["two workers a slice", "one worker a slice"],
)
def test_slices_are_one_device(mesh, one_device, monkeypatch):
  found, made = losses(config_on(mesh), jax.devices(), monkeypatch)
  np.testing.assert_allclose(found, one_device, rtol=0, atol=1e-5)
  state = made.abstract_state
  per_slice = 4 // mesh["slice"]
  # The global parameters are on every slice; a worker's own, on its own.
  name = ("blocks", "feed_forward", "up", "kernel")
  common, own = state.variables.params, state.extra["workers"]["params"]
  for key in name:
    common, own = common[key], own[key]
  cut = common.sharding.shard_shape(common.shape)
  assert np.prod(cut) == np.prod(common.shape) // 2  # fsdp
  assert own.sharding.shard_shape(own.shape) == (per_slice, *cut)
  moments = [
    x for x in jax.tree.leaves(state.opt_state) if x.shape == own.shape
  ]
  assert len(moments) >= 2
  assert all(m.sharding == own.sharding for m in moments)


def reachable(program, roots):
  """Names of the computations that `roots` call, themselves included."""
  seen, queue = set(), list(roots)
  while queue:
    name = queue.pop()
    if name in seen:
      continue
    seen.add(name)
    for instruction in program.computations[name].values():
      queue += called(program, instruction)
  return seen


def called(program, instruction):
  words = re.findall(r"%([\w.\-]+)", instruction.attributes)
  return [word for word in words if word in program.computations]


@pytest.mark.slow
def test_only_metrics_cross_slices_between_outer_steps():
  made = build.run(
    config_on({"slice": 2, "data": 2, "fsdp": 2}, workers=2), None
  )
  batches = made.batches(0)
  batch = next(batches)
  batches.close()
  step = loop.jit_step(made)
  text = step.lower(made.abstract_state, batch, made.rng).compile().as_text()
  program = hlo.parse(text)
  everything = [i for c in program.computations.values() for i in c.values()]
  conditionals = [i for i in everything if i.opcode == "conditional"]
  assert conditionals
  inside = reachable(
    program, [c for i in conditionals for c in called(program, i)]
  )
  mesh = jax.tree.leaves(made.abstract_state)[0].sharding.mesh
  between, within = [], []
  for name, computation in program.computations.items():
    for instruction in computation.values():
      kind = instruction.opcode.removesuffix("-start")
      if kind not in collectives.KINDS:
        continue
      pairs = re.findall(r"\{(\d+),(\d+)\}", instruction.attributes)
      groups = (
        [[int(a), int(b)] for a, b in pairs]
        if kind == "collective-permute"
        else collectives.replica_groups(
          instruction.attributes, dict(mesh.shape)
        )
      )
      if "slice" in collectives.spanned(groups, dict(mesh.shape)):
        (within if name in inside else between).append(instruction)
  # Sums of metrics, each a scalar, and in the outer step, means.
  assert {i.opcode for i in between} == {"all-reduce"}
  assert all(leaf.dims == () for i in between for leaf in i.leaves)
  assert {i.opcode for i in within} == {"all-reduce"}
  # As much as the parameters that a device holds, once.
  params = made.abstract_state.variables.params
  held = sum(
    int(np.prod(x.sharding.shard_shape(x.shape))) * x.dtype.itemsize
    for x in jax.tree.leaves(params)
  )
  assert sum(i.nbytes for i in within) == held


@pytest.mark.slow
def test_a_run_in_two_parts_is_one_to_the_bit(tmp_path):
  """Stopped between two outer steps, on two slices."""
  finished = []
  for name, stop in (("whole", None), ("parts", 4)):
    config = linear_regression.get_config("smoke")
    config.total_steps = 6
    config.evals = {}
    config.learner = dict(name="diloco", workers=2, local_steps=4)
    config.optimizer = dict(name="adam", lr=0.1)
    config.checkpoint = dict(every_steps=3)
    config.mesh = {"slice": 2, "data": 4}
    workdir = str(tmp_path / name)
    for report in loop.fit(build.run(config, workdir)):
      if report.step == stop:
        break
    made = build.run(config, workdir)
    if stop is not None:
      assert made.checkpoints.latest_step() == 3
      list(loop.fit(made))
      made = build.run(config, workdir)
    assert made.checkpoints.latest_step() == 6
    finished.append(
      checkpoint.restore(made.checkpoints, made.abstract_state, 6).state
    )
  whole, parts = map(jax.tree.leaves, finished)
  assert len(whole) == len(parts)
  for a, b in zip(whole, parts, strict=True):
    assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
