"""The loop's order, what it writes, and the clock's arithmetic."""

import contextlib
import types as std_types

import jax
import jax.numpy as jnp
import pytest

from common import errors
from train import loop, types
from train.checkpointing import checkpoint, recovery
from train.measuring import goodput, timing


def learner(bad_step=None):
  """Counts; its metrics at update k are k and a random number of its key."""

  def init(rng, batch):
    del rng, batch
    return types.State(
      jnp.zeros((), jnp.int32),
      types.Variables({"w": jnp.zeros(())}, {}),
      (),
      {},
    )

  def step(state, batch, rng):
    loss = 1.0 * state.step
    if bad_step is not None:
      loss = jnp.where(state.step == bad_step, jnp.nan, loss)
    params = {"w": state.variables.params["w"] + batch["x"].sum()}
    metrics = {
      # A mean of two halves: read as total / weight.
      "loss": types.Mean(loss * 2, jnp.float32(2)),
      "drawn": types.mean_of(jax.random.uniform(rng)),
      "nothing": types.Mean(jnp.float32(0), jnp.float32(0)),
    }
    variables = state.variables._replace(params=params)
    state = state._replace(step=state.step + 1, variables=variables)
    return state, metrics

  return types.Learner(init, step, lambda state: state.variables)


class Calls(list):
  """Everything that `fit` calls, in order, as short lines."""

  def clock(self, units, costs, started):
    def said(name):
      @contextlib.contextmanager
      def block(_):
        if name:
          self.append(name)
        yield

      return block

    assert (units, costs, started) == ({"examples": 3}, None, None)
    return std_types.SimpleNamespace(
      phase=said(""),
      waiting=said(""),
      step=said("step"),
      read=lambda: {"step_seconds": 1.0},
    )

  @contextlib.contextmanager
  def ledger(self, path, clock, costs):
    assert (path, costs) == (None, None)
    try:
      yield std_types.SimpleNamespace(
        note=lambda *row: self.append(f"note {row}"), summary=dict
      )
    finally:
      self.append("close ledger")

  def writer(self):
    return std_types.SimpleNamespace(
      start=lambda step, unfinished: self.append(
        f"start {step}"
        + f" without {sorted(unfinished)}"
        * (step is not None and len(unfinished) > 0)
      ),
      write=lambda step, scalars: self.append(
        f"write {step} {scalars.get('train/loss', sorted(scalars))}"
      ),
      close=lambda: self.append("close writer"),
    )

  def restored(self, latest, record):
    """What the last checkpoint, of step `latest`, holds; None is none."""
    if latest is None:
      return None
    state = learner().init(None, None)
    params = {"w": jnp.float32(3 * sum(range(latest)))}
    variables = state.variables._replace(params=params)
    state = state._replace(step=jnp.int32(latest), variables=variables)
    return checkpoint.Restored(latest, state, record)

  def batches(self, first):
    self.append(f"open {first}")
    try:
      step = first
      while True:
        self.append(f"batch {step}")
        yield {"x": jnp.full(3, step, jnp.float32)}
        step += 1
    finally:
      self.append("close batches")

  def evaluate(self, name, figures):
    def evaluate(variables, step):
      # The state before update `step` is the sum over the batches so far.
      assert float(variables.params["w"]) == 3 * sum(range(step))
      self.append(f"evaluate {name} {step}")
      return figures

    return evaluate


@pytest.fixture
def calls(monkeypatch):
  """Calls, with the clock, the saves and the reads of the loop recorded."""
  calls = Calls()

  def save(saver, step, state, record, leaving):
    assert int(state.step) == step
    assert record["position"] == 3 * step
    assert leaving == (step == saver.manager.total_steps)
    calls.append(f"save {step}")

  device_get = jax.device_get

  def read(metrics):
    metrics = device_get(metrics)
    calls.append(f"read {metrics['loss'].value():.0f}")
    return metrics

  monkeypatch.setattr(timing, "Clock", calls.clock)
  monkeypatch.setattr(goodput, "Ledger", calls.ledger)
  monkeypatch.setattr(recovery, "save", save)
  monkeypatch.setattr(recovery, "check_save", lambda saver: None)
  monkeypatch.setattr(
    recovery, "restored", lambda saver, *_: saver.manager.restored
  )
  close = lambda *_: calls.append("close checkpoints")  # noqa: E731
  monkeypatch.setattr(recovery, "close", close)
  monkeypatch.setattr(jax, "device_get", read)
  return calls


def run_of(
  calls, total_steps, latest=None, bad_step=None, record=None, **fields
):
  made = learner(bad_step)
  place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  abstract = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
    jax.eval_shape(made.init, None, None),
  )
  return loop.Run(
    learner=made,
    init=lambda: made.init(None, None),
    abstract_state=abstract,
    batches=calls.batches,
    total_steps=total_steps,
    units_per_step={"examples": 3},
    rng=jax.random.key(9),
    checkpoints=std_types.SimpleNamespace(
      restored=calls.restored(latest, record or {}),
      total_steps=total_steps,
      latest_step=lambda: latest,
    ),
    writer=calls.writer(),
    **{"evaluations": {}, **fields},
  )


def evaluations(calls):
  return {
    "val": loop.Evaluation(calls.evaluate("val", {"loss": 0.5, "f1": 1.0}), 2),
    "end": loop.Evaluation(calls.evaluate("end", {"loss": 0.25}), 0),
    "grid": loop.Evaluation(calls.evaluate("grid", {}), 2),
  }


def test_order_of_a_whole_run(calls):
  run = run_of(
    calls,
    4,
    evaluations=evaluations(calls),
    checkpoint_every=2,
    log_every=2,
  )
  reports = list(loop.fit(run))
  # The update before is read while the next one runs, but where something is
  # due: then before it, so that all up to k is on disk before k is saved. A
  # crash in an evaluation finds the state of its step saved.
  assert calls == [
    *("start None", "note ('resume', None)"),
    *("open 0", "batch 0", "step"),
    *("batch 1", "step", "read 0"),
    *("read 1", "write 2 1.0"),
    *("save 2", "note ('save', 2)"),
    *("evaluate val 2", "write 2 ['val/f1', 'val/loss']", "evaluate grid 2"),
    *("batch 2", "step"),
    *("batch 3", "step", "read 2"),
    *("read 3", "write 4 3.0"),
    *("save 4", "note ('save', 4)"),
    *("evaluate val 4", "write 4 ['val/f1', 'val/loss']"),
    *("evaluate end 4", "write 4 ['end/loss']", "evaluate grid 4"),
    *("close batches", "close checkpoints", "close writer", "close ledger"),
  ]
  assert [r.step for r in reports] == [2, 2, 4, 4, 4]
  assert reports[1].scalars == {"val/loss": 0.5, "val/f1": 1.0}
  assert reports[4].scalars == {"end/loss": 0.25}
  assert reports[0].scalars["step_seconds"] == 1


def test_order_of_a_resumed_run(calls):
  run = run_of(
    calls,
    4,
    latest=2,
    evaluations=evaluations(calls),
    checkpoint_every=2,
    log_every=2,
  )
  reports = list(loop.fit(run))
  # Step 2 is neither evaluated nor saved again.
  assert calls[:4] == ["start 2", "note ('resume', 2)", "open 2", "batch 2"]
  assert calls.index("save 4") < calls.index("evaluate val 4")
  assert [r.step for r in reports] == [4, 4, 4]


def test_a_run_that_is_told_to_stop_saves_and_says_what_is_due(calls):
  run = run_of(
    calls,
    6,
    evaluations=evaluations(calls),
    checkpoint_every=4,
    log_every=2,
    stop=lambda step: "SIGTERM" if step == 2 else None,
  )
  records = []
  save = recovery.save
  recovery.save = lambda saver, step, state, record, leaving: records.append(
    (step, record["evaluated"], leaving)
  )
  try:
    with pytest.raises(errors.Preempted, match="SIGTERM after step 2"):
      list(loop.fit(run))
  finally:
    recovery.save = save
  # The evaluations of step 2 may take longer than there is time.
  assert records == [(2, False, True)]
  assert calls[-7:] == [
    *("read 1", "write 2 1.0", "note ('save', 2)"),
    *("close batches", "close checkpoints", "close writer", "close ledger"),
  ]


def test_a_resumed_run_makes_up_for_evaluations(calls):
  run = run_of(
    calls,
    4,
    latest=2,
    record={"evaluated": False},
    evaluations=evaluations(calls),
    checkpoint_every=2,
    log_every=2,
  )
  list(loop.fit(run))
  assert calls[0] == "start 2 without ['end', 'grid', 'val']"
  assert calls[2:5] == [
    *("evaluate val 2", "write 2 ['val/f1', 'val/loss']", "evaluate grid 2"),
  ]
  assert "save 2" not in calls


def test_a_run_that_is_over_does_nothing(calls):
  run = run_of(calls, 4, latest=4, evaluations=evaluations(calls))
  assert list(loop.fit(run)) == []
  assert calls == [
    *("start 4", "note ('resume', 4)"),
    *("close checkpoints", "close writer", "close ledger"),
  ]


def test_a_run_of_no_steps_saves_its_initial_state(calls):
  assert list(loop.fit(run_of(calls, 0))) == []
  assert calls == [
    *("start None", "note ('resume', None)"),
    *("save 0", "note ('save', 0)"),
    *("close checkpoints", "close writer", "close ledger"),
  ]


@pytest.mark.parametrize("log_every", [1, 3, 100])
def test_reports_come_every_so_often_and_at_the_end(calls, log_every):
  reports = list(loop.fit(run_of(calls, 7, log_every=log_every)))
  wanted = [k for k in range(1, 8) if k % log_every == 0 or k == 7]
  assert [r.step for r in reports] == wanted
  key = jax.random.key(9)
  for report in reports:
    k = report.step - 1  # the update that led there
    drawn = float(jax.random.uniform(jax.random.fold_in(key, k)))
    assert report.scalars == {
      "train/loss": k,
      "train/drawn": drawn,
      "step_seconds": 1,
    }
  # Every update is read, also where nothing is reported.
  assert [c for c in calls if c.startswith("read")] == [
    f"read {k}" for k in range(7)
  ]


@pytest.mark.parametrize("bad_step", [1, 2, 3])
def test_what_is_not_finite_is_never_saved(calls, bad_step):
  run = run_of(calls, 4, bad_step=bad_step, checkpoint_every=2, log_every=100)
  with pytest.raises(
    FloatingPointError, match=f"train/loss is nan at step {bad_step + 1};"
  ):
    list(loop.fit(run))
  saved = [c for c in calls if c.startswith("save")]
  assert saved == (["save 2"] if bad_step >= 2 else [])
  assert calls[-4:-1] == ["close batches", "close checkpoints", "close writer"]


@pytest.mark.parametrize("taken", [1, 2, 3])
def test_an_abandoned_run_closes_everything(calls, taken):
  """After a report of training, and of two evaluations inside the loop."""
  run = run_of(calls, 100, evaluations=evaluations(calls), log_every=2)
  reports = loop.fit(run)
  for _ in range(taken):
    next(reports)
  assert not any(c.startswith("close") for c in calls)
  reports.close()
  assert calls[-4:-1] == ["close batches", "close checkpoints", "close writer"]


def test_without_writer_and_checkpoints_nothing_is_needed(calls):
  run = run_of(calls, 3, checkpoint_every=1, log_every=1)
  reports = list(loop.fit(run._replace(checkpoints=None, writer=None)))
  assert [r.step for r in reports] == [1, 2, 3]
  assert not any(c.startswith(("save", "write", "start")) for c in calls)
