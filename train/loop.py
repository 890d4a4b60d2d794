"""The one loop: evaluate, save, batch, step, read the step before."""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax

from train import (
  checkpoint,
  distributed,
  goodput,
  profile,
  sharding,
  timing,
  types,
)
from train.errors import Preempted


class Evaluation(NamedTuple):
  """An evaluator and when it runs: every so many steps, and at the end.

  every_steps: 0 leaves it for the end alone.
  """

  evaluate: types.Evaluator
  every_steps: int


class Run(NamedTuple):
  """All that `fit` needs.

  init: () -> State, laid out over the mesh.
  abstract_state: its ShapeDtypeStructs with shardings, for a restore.
  batches: (first step) -> iterator of global batches, one a step.
  units_per_step: what a step consumes, such as {"examples": 12}.
  checkpoints: an Orbax manager, or None to keep nothing.
  writer: has start(step), write(step, scalars), close(); or None.
  rng: folded with the step's number.
  costs: a costs.Costs, of which MFU and energy are told; or None.
  ledger: the file that goodput is kept in, over all starts; or None.
  started: Unix time at which the process began its work; None is now.
  trace: what is profiled.
  stop: (updates dispatched) -> why to stop before the next one, or None.
  """

  learner: types.Learner
  init: Callable[[], types.State]
  abstract_state: types.PyTree
  batches: Callable[[int], Iterator[types.Batch]]
  evaluations: dict[str, Evaluation]
  total_steps: int
  units_per_step: dict[str, int]
  rng: jax.Array
  checkpoints: Any = None
  checkpoint_every: int = 0
  log_every: int = 10
  writer: Any = None
  costs: Any = None
  ledger: str | None = None
  started: float | None = None
  trace: profile.Trace = profile.Trace()
  stop: Callable[[int], str | None] = lambda step: None


class Report(NamedTuple):
  """What is known after `step` updates."""

  step: int
  scalars: dict[str, float]


def fit(run: Run) -> Iterator[Report]:
  """Trains `run`, from its last checkpoint if there is one; yields Reports.

  The order inside is what exact resuming rests on. At step k: read the metrics
  of the update before, evaluate the state, save it, take batch k, update. All
  that is written up to k is on disk before the save of k starts; a resumed run
  drops what was written after k and does not evaluate k again.

  Raises:
    FloatingPointError: a metric of an update is NaN or infinite. Nothing that
      came of it is saved.
  """
  clock = timing.Clock(run.units_per_step, run.costs, run.started)
  with goodput.Ledger(run.ledger, clock, run.costs) as ledger:
    state, start = _restored(run, clock)
    resumed = state is not None
    ledger.note("resume", start if resumed else None)
    state = run.init() if state is None else state
    step_fn = jit_step(run)
    serial = distributed.one_at_a_time()
    batches = run.batches(start)
    pending = None
    try:
      for step in range(start, run.total_steps + 1):
        reason = run.stop(step)
        last = step == run.total_steps
        fresh = not (resumed and step == start)
        due = [
          key
          for key, evaluation in run.evaluations.items()
          if fresh and (last or _every(evaluation.every_steps, step))
        ]
        saving = (
          run.checkpoints is not None
          and fresh
          and (last or reason or _every(run.checkpoint_every, step))
        )
        if pending is not None and (due or saving or last):
          yield from _read(run, clock, ledger, *pending)
          pending = None
        with clock.phase("evaluation"):
          variables = run.learner.variables(state) if due else None
          for key in due:
            found = run.evaluations[key].evaluate(variables, step)
            scalars = {f"{key}/{name}": v for name, v in found.items()}
            if scalars:
              yield from _told(run, clock, Report(step, scalars))
        if saving:
          with clock.phase("save"):
            position = step * run.units_per_step["examples"]
            checkpoint.save(run.checkpoints, step, state, position)
          ledger.note("save", step)
        if last:
          break
        if reason is not None:
          raise Preempted(reason, step)
        with clock.phase("report"):
          run.trace.before(step)
        with clock.waiting(pending):
          batch = next(batches)
        with clock.step(step):
          state, metrics = step_fn(state, batch, run.rng)
          if serial:
            jax.block_until_ready((state, metrics))
        with clock.phase("report"):
          run.trace.after(step, metrics)
        if pending is not None:
          yield from _read(run, clock, ledger, *pending)
        pending = (step + 1, metrics)
    finally:
      run.trace.close()
      batches.close()
      with clock.phase("save"):
        if run.checkpoints is not None:
          run.checkpoints.close()  # waits for the save in flight
      if run.writer is not None:
        run.writer.close()


def _every(n: int, step: int) -> bool:
  return n > 0 and step > 0 and step % n == 0


def _restored(run: Run, clock) -> tuple[types.State | None, int]:
  """(state, step) of the last checkpoint, or (None, 0)."""
  if run.checkpoints is None or run.checkpoints.latest_step() is None:
    if run.writer is not None:
      run.writer.start(None)
    return None, 0
  with clock.phase("restore"):
    state, _ = checkpoint.restore(run.checkpoints, run.abstract_state)
  start = run.checkpoints.latest_step()
  if run.writer is not None:
    run.writer.start(start)
  return state, start


def jit_step(run: Run):
  """The compiled update: (state, batch, rng) -> (state, metrics)."""
  shardings = jax.tree.map(lambda x: x.sharding, run.abstract_state)

  def step(state, batch, rng):
    state = sharding.in_device_memory(state, shardings)
    return run.learner.step(state, batch, jax.random.fold_in(rng, state.step))

  # The state's own shardings: else the second step compiles again.
  return jax.jit(step, donate_argnums=0, out_shardings=(shardings, None))


def _read(run, clock, ledger, step, metrics) -> Iterator[Report]:
  """Reads the metrics of an update; yields a Report when one is due."""
  values = {
    name: float(mean.total) / (float(mean.weight) or 1.0)
    for name, mean in jax.device_get(metrics).items()
  }
  for name, value in values.items():
    if not math.isfinite(value):
      raise FloatingPointError(
        f"train/{name} is {value} at step {step}; what was saved before stays"
      )
  if step % run.log_every and step != run.total_steps:
    return
  scalars = {f"train/{name}": value for name, value in values.items()}
  figures = {**scalars, **clock.read(), **ledger.summary()}
  yield from _told(run, clock, Report(step, figures))


def _told(run, clock, report: Report) -> Iterator[Report]:
  """Writes a Report, then hands it to whoever drains `fit`."""
  with clock.phase("report"):
    if run.writer is not None:
      run.writer.write(report.step, report.scalars)
    yield report
