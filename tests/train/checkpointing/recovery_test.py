"""Runs that meet bad numbers: updates dropped, runs gone back, to the bit."""

import json
import subprocess

import jax
import jax.numpy as jnp
import many_processes
import numpy as np
import pytest
from tiers import slow_but

from common import config_keys
from common.errors import CorruptionError
from configs.language import lm_stdlib
from configs.textbook import linear_regression
from configs.vision.classification import conv_fashion_mnist
from configs.vision.generation import gan_fashion_mnist
from train import assembly, build, loop, trained
from train.checkpointing import bad_batches, determinism_check
from train.measuring import timing

STEPS, BATCH = 40, 8
HUGE = 1e30  # finite, as data have to be; its square is not in float32


def table(tmp_path, bad: dict[int, float]) -> str:
  """y = x A + noise, of which some examples' y is replaced."""
  rng = np.random.default_rng(0)
  x = rng.normal(size=(STEPS * BATCH, 3))
  y = x @ [1.0, -2.0, 0.5] + 0.1 * rng.normal(size=len(x))
  y[list(bad)] = list(bad.values())
  path = tmp_path / "table.jsonl"
  with path.open("w") as file:
    for one, target in zip(x, y, strict=True):
      file.write(json.dumps({"x": one.tolist(), "y": [target]}) + "\n")
  return f"jsonl:{path}"


def config_of(source: str, **recovery):
  config = config_keys.plain(linear_regression.get_config("smoke"))
  return {
    **config,
    "total_steps": STEPS,
    "batch_size": BATCH,
    "log_every_steps": 1,
    "evals": {},
    "data": dict(source=source, split="all", shuffle=False),
    "optimizer": dict(name="adam", lr=0.01),
    "checkpoint": dict(every_steps=5, keep=4),
    "recovery": recovery,
  }


def run(config, workdir, say=None):
  """Trains to the end; the reports."""
  said = [] if say is None else say
  return list(loop.fit(build.run(config, str(workdir), say=said.append)))


def rows(workdir):
  return [
    {k: v for k, v in json.loads(line).items() if k not in timing.CLOCK_KEYS}
    for line in (workdir / "metrics.jsonl").read_text().splitlines()
  ]


def final(workdir):
  return trained.load_state(str(workdir))


def same(a, b):
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def experiment(name, learner=None):
  config = config_keys.plain(
    {
      "lm": lm_stdlib,
      "conv": conv_fashion_mnist,
      "gan": gan_fashion_mnist,
      "regression": linear_regression,
    }[name].get_config("smoke")
  )
  config["batch_size"] = 16
  config["learner"].update(learner or {})
  return assembly.experiment(config)


@pytest.mark.parametrize(
  ("name", "value", "learner"),
  [
    ("lm", np.inf, {}),
    ("conv", np.nan, {"ema": 0.9}),
    pytest.param("gan", np.nan, {"ema": 0.9}, marks=pytest.mark.slow),
    ("regression", np.inf, {}),
  ],
)
def test_an_update_that_is_not_finite_changes_the_step_alone(
  name, value, learner
):
  """Moments, averages and batch statistics stay, bit for bit."""
  parts = experiment(name, learner)
  init, _ = assembly.state_of(parts)
  batch = {k: jnp.asarray(v) for k, v in next(parts.data.batches(0)).items()}
  step = jax.jit(parts.learner.step)
  rng = jax.random.key(1)
  state, metrics = step(init(), batch, rng)
  assert metrics["dropped"].value() == 0
  leaf = "image" if "image" in batch else "x" if "x" in batch else "mask"
  bad = {**batch, leaf: batch[leaf].at[3].set(value)}
  after, metrics = step(state, bad, rng)
  assert metrics["dropped"].value() == 1
  assert int(after.step) == int(state.step) + 1
  same(after._replace(step=state.step), state)
  # And the next one goes on from there.
  good, _ = step(after, batch, rng)
  changed = [
    not np.array_equal(a, b)
    for a, b in zip(
      jax.tree.leaves(good.variables.params),
      jax.tree.leaves(state.variables.params),
      strict=True,
    )
  ]
  assert any(changed)


def test_a_worker_of_diloco_drops_its_own():
  learner = dict(name="diloco", workers=2, local_steps=2)
  parts = experiment("regression", learner)
  init, _ = assembly.state_of(parts)
  batch = {k: jnp.asarray(v) for k, v in next(parts.data.batches(0)).items()}
  step = jax.jit(parts.learner.step)
  state, _ = step(init(), batch, jax.random.key(1))
  bad = {**batch, "x": batch["x"].at[0].set(jnp.nan)}  # of worker 0
  after, metrics = step(state, bad, jax.random.key(1))
  expected, _ = step(state, batch, jax.random.key(1))
  assert metrics["dropped"].value() == 0.5
  own, before, usual = (
    jax.tree.map(np.asarray, s.opt_state["workers"])
    for s in (after, state, expected)
  )
  same(jax.tree.map(lambda x: x[0], own), jax.tree.map(lambda x: x[0], before))
  same(jax.tree.map(lambda x: x[1], own), jax.tree.map(lambda x: x[1], usual))


def test_a_run_goes_on_over_what_is_not_finite(tmp_path):
  """The end is that of the good batches alone, and the drops are counted."""
  bad = {9: HUGE, 41: HUGE, 42: -HUGE, 100: HUGE}
  config = config_of(table(tmp_path, bad))
  reports = run(config, tmp_path / "run")
  dropped = {index // BATCH for index in bad}
  counts = [r.scalars["train/dropped"] for r in reports]
  assert counts == [sum(b <= k for b in dropped) for k in range(STEPS)]
  assert ["train/loss" in r.scalars for r in reports[:3]] == [1, 0, 1]
  text = (tmp_path / "run" / "metrics.jsonl").read_text()
  assert "NaN" not in text and "Infinity" not in text

  parts = assembly.experiment(config)
  init, _ = assembly.state_of(parts)
  state, step = init(), jax.jit(parts.learner.step)
  stream = parts.data.batches(0)
  for k in range(STEPS):
    batch = next(stream)
    if k not in dropped:
      state, _ = step(state, batch, jax.random.key(0))
  ours = final(tmp_path / "run")
  for a, b in zip(
    jax.tree.leaves(ours[1:]), jax.tree.leaves(state[1:]), strict=True
  ):
    # One device against eight: sums in another order.
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_too_many_in_a_row_send_the_run_back(tmp_path):
  """Batches 12 to 16 are bad; the run goes back to 10, without them."""
  bad = {BATCH * k: HUGE for k in range(12, 17)}
  config = config_of(table(tmp_path, bad), max_dropped=3)
  said = []
  run(config, tmp_path / "run", said)
  (row,) = bad_batches.read(tmp_path / "run" / "skipped.jsonl")
  assert (row.step, row.to, row.batches) == (16, 10, (12, 16))
  assert said == [
    f"{row.reason}: rolling back to step 10, and skipping batches 12 to 15"
  ]
  # Batch 16 is bad too, and alone: dropped.
  assert rows(tmp_path / "run")[-1]["train/dropped"] == 1


OUTLIER = {BATCH * 17 + 1: 300.0}


def test_a_spike_is_passed_over_as_if_it_had_never_been(tmp_path):
  config = config_of(table(tmp_path, OUTLIER), spike=10.0, window=8, around=1)
  config["log_examples"] = True
  said = []
  run(config, tmp_path / "run", said)
  (row,) = bad_batches.read(tmp_path / "run" / "skipped.jsonl")
  # The update from batch 17 leads to step 18; the save before it is of 15.
  assert (row.step, row.to, row.batches) == (18, 15, (16, 19))
  assert "rose to" in said[0]
  taken = (tmp_path / "run" / "examples.jsonl").read_text().splitlines()
  ids = [json.loads(line)["index"] for line in taken]
  n = STEPS * BATCH
  expected = [k for k in range(STEPS + 3) if k not in (16, 17, 18)]
  assert ids == [[(BATCH * k + i) % n for i in range(BATCH)] for k in expected]
  # A run that passes them over from its start on is the same run.
  other = tmp_path / "other"
  other.mkdir()
  (other / "skipped.jsonl").write_bytes(
    (tmp_path / "run" / "skipped.jsonl").read_bytes()
  )
  run(config, other)
  same(final(tmp_path / "run"), final(other))
  assert rows(tmp_path / "run") == rows(other)


@pytest.mark.slow
def test_two_processes_drop_and_go_back_alike(tmp_path):
  """What is not finite, and what leaps, is in the rows of one of them."""
  bad = {9: HUGE, BATCH * 17 + 1: 300.0}
  config = config_of(table(tmp_path, bad), spike=10.0, window=8)
  run(config, tmp_path / "one")
  flag = many_processes.flag_of(config, tmp_path)
  # Cold starts, as a cluster's are; the other tests of processes fork.
  found = many_processes.end(
    many_processes.start(2, tmp_path / "two", flag, popen=subprocess.Popen)
  )
  assert [code for code, _ in found] == [0, 0], found
  one, two = (tmp_path / name for name in ("one", "two"))
  assert [r["train/dropped"] for r in rows(two)] == [
    r["train/dropped"] for r in rows(one)
  ]
  for a, b in zip(rows(one), rows(two), strict=True):
    for key in a:
      np.testing.assert_allclose(a[key], b[key], rtol=1e-5, err_msg=key)
  ledgers = [bad_batches.read(path / "skipped.jsonl") for path in (one, two)]
  assert [row.batches for row in ledgers[0]] == [(17, 18)]
  assert ledgers[0] == ledgers[1]


@pytest.mark.parametrize("stop", slow_but([21], [16, 21]))
def test_a_stopped_run_finds_the_same_spike(tmp_path, stop):
  """What it judges by is in the checkpoint."""
  config = config_of(table(tmp_path, OUTLIER), spike=10.0, window=8)
  run(config, tmp_path / "straight")
  workdir = str(tmp_path / "stopped")
  reports = loop.fit(build.run(config, workdir, say=lambda line: None))
  for report in reports:
    if report.step == stop:
      break
  reports.close()
  run(config, tmp_path / "stopped")
  same(final(tmp_path / "straight"), final(tmp_path / "stopped"))
  assert rows(tmp_path / "straight") == rows(tmp_path / "stopped")
  ledgers = [
    bad_batches.read(tmp_path / name / "skipped.jsonl")
    for name in ("straight", "stopped")
  ]
  assert ledgers[0] == ledgers[1] and len(ledgers[0]) == 1


def test_a_kill_between_ledger_and_return_goes_back_all_the_same(tmp_path):
  """The row is written; the checkpoints it goes back from are still there."""
  config = config_of(table(tmp_path, {}), spike=10.0, window=8)
  run(config, tmp_path / "run")
  row = bad_batches.Skip(32, 25, (30, 33), "by hand")
  bad_batches.append(tmp_path / "run" / "skipped.jsonl", row, BATCH)
  other = tmp_path / "other"
  other.mkdir()
  bad_batches.append(other / "skipped.jsonl", row, BATCH)
  run(config, tmp_path / "run")
  run(config, other)
  same(final(tmp_path / "run"), final(other))
  assert rows(tmp_path / "run") == rows(other)


def test_going_back_is_bounded_and_goes_further_each_time(tmp_path):
  """From batch 20 on every example is an outlier."""
  bad = dict.fromkeys(range(20 * BATCH, STEPS * BATCH), 300.0)
  source = table(tmp_path, bad)
  config = config_of(source, spike=10.0, window=8, max_rollbacks=2)
  with pytest.raises(FloatingPointError, match="after 2 rollbacks"):
    run(config, tmp_path / "run")
  found = bad_batches.read(tmp_path / "run" / "skipped.jsonl")
  assert [row.to for row in found] == [20, 15]
  assert [row.batches for row in found] == [(20, 21), (21, 22)]


@pytest.mark.slow
def test_a_step_taken_twice_is_the_same_and_costs_nothing_of_the_result(
  tmp_path,
):
  config = conv_fashion_mnist.get_config("smoke")
  config.total_steps = 4
  list(loop.fit(build.run(config, str(tmp_path / "once"))))
  checked = build.run(config, str(tmp_path / "twice"))
  list(loop.fit(checked._replace(twice_every=1)))
  same(final(tmp_path / "once"), final(tmp_path / "twice"))


def test_a_flipped_bit_in_the_computation_is_named(tmp_path, monkeypatch):
  """One of the two results is corrupted between the steps."""
  config = config_of(table(tmp_path, {}))
  made = build.run(config, str(tmp_path / "run"))
  whole = determinism_check.twin

  def faulty(step_fn, state, batch, rng):
    if int(state.step) == 6:
      params = jax.tree.map(lambda x: x + 0, state.variables.params)
      kernel = params["layers"]["0"]["kernel"]
      bits = np.asarray(kernel).view(np.uint32).copy()
      bits[0, 0] ^= 1 << 12
      params["layers"]["0"]["kernel"] = jax.device_put(
        bits.view(np.float32), kernel.sharding
      )
      state = state._replace(variables=state.variables._replace(params=params))
    return whole(step_fn, state, batch, rng)

  monkeypatch.setattr(determinism_check, "twin", faulty)
  with pytest.raises(
    CorruptionError,
    match="after step 6 was computed twice .* and 8 more differ",
  ):
    list(loop.fit(made._replace(twice_every=3)))
