"""The training loop: save, evaluate, batch, update, read metrics."""

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax

from common.errors import Preempted
from train import compiler_options, sharding, types
from train.checkpointing import (
  bad_batches,
  determinism_check,
  evaluated,
  health,
  recovery,
  schedule,
  tracking,
)
from train.hosts import distributed
from train.measuring import goodput, profile, timing


class Evaluation(NamedTuple):
  """An evaluator; it runs every `every_steps` (0: never) and at the end."""

  evaluate: types.Evaluator
  every_steps: int


class Run(NamedTuple):
  """Everything that `fit` needs.

  init: () -> State, sharded over the mesh.
  abstract_state: its ShapeDtypeStructs with shardings, for restoring.
  batches: (number of the first batch) -> iterator of global batches.
  units_per_step: the units that a step processes, such as {"examples": 12}.
  checkpoints: an Orbax manager, or None to save nothing.
  checkpoint_every: steps between checkpoints; 0 saves only the last step.
  checkpoint_minutes: the same in minutes.
  strict: whether to stop at a damaged checkpoint instead of using the previous.
  stop_on_save_error: whether the run stops when a checkpoint cannot be written.
  writer: an object with start(step), write(step, scalars), close(); or None.
  observe: (step, state, batch, rng) -> None, called before each update.
  rng: the random key of the run; each step folds in its number.
  costs: a costs.Costs, from which MFU and energy are computed; or None.
  ledger: the path of goodput.jsonl, over all starts of the run; or None.
  skipped: the path of skipped.jsonl, the skipped batches; or None.
  started: Unix time at which the process began; None is now.
  trace: which steps are profiled.
  limits: when to roll back to a checkpoint.
  stop: (step) -> the reason to save and stop, or None; equal on all processes.
  twice_every: the interval of steps that are computed twice; 0 disables this.
  log_examples: whether the writer records which examples each update uses.
  rules: which checkpoint is the best, and when to stop early.
  evaluated: the path of evaluated.json, the evaluations done; or None.
  say: (line) -> None; prints a line.
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
  checkpoint_minutes: float = 0.0
  strict: bool = False
  stop_on_save_error: bool = True
  log_every: int = 10
  writer: Any = None
  observe: Callable[..., None] = lambda *_: None
  costs: Any = None
  ledger: str | None = None
  skipped: str | None = None
  started: float | None = None
  trace: profile.Trace = profile.Trace()
  limits: health.Limits = health.limits()
  stop: Callable[[int], str | None] = lambda step: None
  twice_every: int = 0
  log_examples: bool = False
  rules: tracking.Rules = tracking.Rules()
  evaluated: str | None = None
  say: Callable[[str], None] = print


class Report(NamedTuple):
  """The metrics after `step` updates."""

  step: int
  scalars: dict[str, float]


class Start(NamedTuple):
  """The point at which a run starts: a checkpoint or the beginning.

  tracked: the best values before the evaluations of `step`.
  done: the evaluations of `step` that are done; None if none remain.
  skipped: the batches that the run skips.
  """

  step: int
  state: types.State
  health: health.Health
  tracked: tracking.Tracked
  done: evaluated.Done | None
  skipped: Sequence[bad_batches.Skip]


def fit(run: Run) -> Iterator[Report]:
  """Trains `run`, from its last checkpoint if there is one; yields Reports.

  An unhealthy run rolls back as if it had been killed, except that it skips the
  bad batches from then on.

  Raises:
    FloatingPointError: a metric is not finite although the update was kept, or
      rolling back did not help. No state that follows from it is saved.
    Preempted: the run received a request to stop, and has saved.
    SaveError: a checkpoint could not be written, or the last not read back.
    CorruptionError: a step computed twice gave different results.
  """
  clock, done = timing.Clock(run.units_per_step, run.costs, run.started), False
  with goodput.Ledger(run.ledger, clock, run.costs) as ledger:
    try:
      step_fn = jit_step(run)
      start = _start(run, clock, ledger, bad_batches.read(run.skipped))
      while True:
        try:
          yield from _updates(run, clock, ledger, step_fn, start)
          done = True
          break
        except health.Unwell as found:
          bad = found.with_traceback(None)  # a traceback keeps the state alive
        with clock.phase("restore"):
          skipped = _pass_over(run, start.skipped, bad)
        start = _start(run, clock, ledger, skipped)
    except Preempted:
      done = True
      raise
    finally:
      _close(run, clock, done)


def _updates(run, clock, ledger, step_fn, start) -> Iterator[Report]:
  """Runs the updates from `start` on.

  Exact resuming depends on this order. At step k: read the metrics of the
  previous update, save the state, evaluate it, take batch k, update. A crash
  during an evaluation loses no training: a resumed run removes the rows written
  after k and runs the evaluations of k that were not done.
  """
  state, well, pending = start.state, start.health, None
  tracked = start.tracked
  start = start._replace(state=None)  # the step donates it
  serial = distributed.one_at_a_time()
  saves = schedule.Schedule(run.checkpoint_every, run.checkpoint_minutes)
  batches = _batches(run, start)
  try:
    for step in range(start.step, run.total_steps + 1):
      last, fresh = step == run.total_steps, step > start.step
      reason = None if last else run.stop(step)
      due = _due(run, step, last) if fresh or start.done else []
      asked = tracking.saved_first(run.rules, tracked, due)
      saving = _saving(run, saves, step, asked, last or reason, fresh)
      if pending is not None and (due or saving or last or reason):
        well = yield from _read(run, clock, ledger, well, *pending)
        pending = None
      record = partial(_record, run, step, well, start, tracked, not due)
      if saving:
        _save(run, clock, ledger, state, record, step, last or reason)
        saves.saved(step)
      if reason:
        raise Preempted(reason, step)
      done = evaluated.Done() if fresh else start.done
      if due:
        found = _evaluated(run, clock, state, due, step, tracked, done)
        tracked, done = yield from found
      if not last and tracking.ends(run.rules, tracked):
        if fresh and not saving and run.checkpoints is not None:
          _save(run, clock, ledger, state, record, step, True)
        yield from _stopped_early(run, clock, state, due, step, tracked, done)
        break
      if last:
        break
      with clock.phase("report"):
        run.trace.before(step)
      with clock.waiting(pending):
        batch = next(batches)
      with clock.phase("report"):
        run.observe(step, state, batch, run.rng)
        expected = None
        if _every(run.twice_every, step):
          expected = determinism_check.twin(step_fn, state, batch, run.rng)
      with clock.step(step):
        state, metrics = step_fn(state, batch, run.rng)
        if serial:
          jax.block_until_ready((state, metrics))
      with clock.phase("report"):
        run.trace.after(step, metrics)
        determinism_check.compare(expected, state, metrics, step)
        _log_examples(run, step, batch)
        recovery.check_save(_saver(run))
      if pending is not None:
        well = yield from _read(run, clock, ledger, well, *pending)
      pending = (step + 1, metrics)
  finally:
    run.trace.close()
    batches.close()


def jit_step(run: Run):
  """Returns the compiled update: (state, batch, rng) -> (state, metrics)."""
  shardings = jax.tree.map(lambda x: x.sharding, run.abstract_state)

  def step(state, batch, rng):
    state = sharding.in_device_memory(state, shardings)
    return run.learner.step(state, batch, jax.random.fold_in(rng, state.step))

  # With the shardings of the state; otherwise the second step recompiles.
  how = {"out_shardings": (shardings, None), "donate_argnums": 0}
  options = compiler_options.of_step(shardings)
  return jax.jit(step, **how, compiler_options=options)


def _every(n: int, step: int) -> bool:
  return n > 0 and step > 0 and step % n == 0


def _due(run, step, last) -> list[str]:
  """Returns the keys of the evaluations that are due at a step."""
  return [
    key
    for key, evaluation in run.evaluations.items()
    if last or _every(evaluation.every_steps, step)
  ]


def _saving(run, saves, step, asked, leaving, fresh) -> bool:
  """Returns whether to save the state of a step; equal on all processes."""
  if run.checkpoints is None:
    return False
  scheduled = saves.due(step)  # called at every step
  if not fresh:  # restored, or the initial state of a run that ends here
    return bool(leaving) and run.checkpoints.latest_step() is None
  return bool(leaving or scheduled or asked)


def _saver(run) -> recovery.Saver:
  return recovery.Saver(run.checkpoints, run.stop_on_save_error, run.say)


def _save(run, clock, ledger, state, record, step, leaving) -> None:
  with clock.phase("save"):
    recovery.save(_saver(run), step, state, record(), bool(leaving))
  ledger.note("save", step)


def _start(run, clock, ledger, skipped) -> Start:
  """Restores the last intact checkpoint, or initializes the state."""
  restored = None
  if run.checkpoints is not None:
    with clock.phase("restore"):
      restored = recovery.restored(
        _saver(run), run.abstract_state, skipped, run.strict
      )
  step = restored.step if restored else None
  record = restored.record if restored else {}
  tracked = tracking.read(record)
  done = evaluated.resume(run.evaluated, step or 0, tracked)
  if record.get("evaluated", restored is not None):
    done = None
  if run.writer is not None:
    finished = run.evaluations if done is None else done.figures
    run.writer.start(step, set(run.evaluations) - set(finished))
  ledger.note("resume", step)
  if restored is None:
    return Start(0, run.init(), health.Health(), tracked, done, skipped)
  recovery.keep_best(_saver(run), tracked)
  return Start(
    restored.step, restored.state, health.read(record), tracked, done, skipped
  )


def _batches(run, start) -> Generator[types.Batch, None, None]:
  """Yields the batches of the updates from `start` on, without skipped ones."""
  for first, end in bad_batches.spans(start.skipped, start.step):
    stream = run.batches(first)
    try:
      while end is None or first < end:
        yield next(stream)
        first += 1
    finally:
      stream.close()


def _evaluated(run, clock, state, due, step, tracked, done):
  """Runs the evaluators that are due and not done; yields their Reports.

  Returns the updated tracked values, and which evaluations are done.
  """
  seen: dict[int, types.Variables] = {}
  with clock.phase("evaluation"):
    for key in tracking.ordered(run.rules, run.evaluations, due):
      found = done.figures.get(key)
      if found is None:
        at = key, tracked, step, state, seen
        variables = recovery.measured(run, _saver(run), *at)
        found = run.evaluations[key].evaluate(variables, step)
        scalars = {f"{key}/{name}": v for name, v in found.items()}
        if scalars:
          yield from _reported(run, clock, Report(step, scalars))
      tracked = tracking.observe(run.rules, tracked, step, key, found)
      best = recovery.keep_best(_saver(run), tracked)
      done = evaluated.Done(step, {**done.figures, key: found}, best)
      evaluated.write(run.evaluated, done)
  return tracked, done


def _stopped_early(run, clock, state, due, step, tracked, done):
  """Runs the evaluations that are due at the end of a run."""
  why = tracking.described(run.rules, tracked)
  run.say(f"stopped early at step {step}: {why}")
  rest = [key for key in _due(run, step, True) if key not in due]
  yield from _evaluated(run, clock, state, rest, step, tracked, done)


def _record(run, step, well, start, tracked, measured) -> dict[str, Any]:
  """Returns the record of a checkpoint, which is saved with the state."""
  batch = bad_batches.batch_of(start.skipped, step)
  return {
    # In examples; a large run has more than 2^31 of them.
    "position": batch * run.units_per_step["examples"],
    "evaluated": measured,
    "health": well._asdict(),
    "rollbacks": len(start.skipped),
    "tracked": tracking.written(tracked),
  }


def _close(run, clock, done) -> None:
  """Waits for the last save, reads it back if `done`, and closes the files."""
  try:
    if run.checkpoints is not None:
      with clock.phase("save"):
        recovery.close(_saver(run), run.abstract_state if done else None)
  finally:
    if run.writer is not None:
      run.writer.close()


def _pass_over(run, skipped, bad):
  examples = run.units_per_step["examples"]
  return recovery.pass_over(
    _saver(run), run.limits, run.skipped, examples, skipped, bad
  )


def _log_examples(run, step, batch) -> None:
  if run.log_examples:
    ids = distributed.fetch(batch["index"])
    if run.writer is not None:
      run.writer.write_examples(step, ids)


def _read(run, clock, ledger, well, step, metrics):
  """Reads the metrics of an update; yields a Report if one is due.

  A mean over nothing is not reported. Returns the health after the update.
  """
  found = jax.device_get(metrics)
  values = {
    name: float(mean.total) / (float(mean.weight) or 1.0)
    for name, mean in found.items()
  }
  well = health.observe(well, run.limits, step, values)
  if step % run.log_every and step != run.total_steps:
    return well
  if health.DROPPED in values:
    values[health.DROPPED] = well.dropped
  scalars = {
    f"train/{name}": value
    for name, value in values.items()
    if math.isfinite(value) and (found[name].weight or name == health.DROPPED)
  }
  figures = {**scalars, **clock.read(), **ledger.summary()}
  yield from _reported(run, clock, Report(step, figures))
  return well


def _reported(run, clock, report: Report) -> Iterator[Report]:
  """Writes a Report, then yields it to the caller of `fit`."""
  with clock.phase("report"):
    if run.writer is not None:
      run.writer.write(report.step, report.scalars)
    yield report
