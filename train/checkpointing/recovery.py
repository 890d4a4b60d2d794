"""How a run continues after a failed save, a damaged checkpoint or a bad loss.

All processes of a run call these functions together.
"""

import os
import pathlib
import shutil
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from common import mirror
from common.errors import SaveError
from train import types
from train.checkpointing import bad_batches, checkpoint, health, tracking
from train.hosts import distributed
from train.types import PyTree


class Saver(NamedTuple):
  """The checkpoint manager of a run and how errors of saves are handled.

  manager: the Orbax manager; None if the run saves no checkpoints.
  stop_on_error: whether a failed save ends the run or is only reported.
  say: (line) -> None; prints a line.
  """

  manager: Any
  stop_on_error: bool
  say: Callable[[str], None]


def restored(
  saver: Saver,
  abstract_state: PyTree,
  skipped: Sequence[bad_batches.Skip],
  strict: bool,
) -> checkpoint.Restored | None:
  """Restores the last intact checkpoint, and moves those after it aside.

  Raises:
    DamagedError: a checkpoint is damaged and `strict` is set.
    SaveError: there are checkpoints, but none of them is intact, or the frozen
      arrays that they share are not.
  """
  manager = saver.manager
  try:
    found, passed = checkpoint.restore_last(
      manager,
      abstract_state,
      strict=strict,
      stands=lambda step, record: bad_batches.stands(skipped, step, record),
    )
  except checkpoint.DamagedError as error:
    if strict:
      raise
    raise SaveError(
      f"{error}; restore a copy of a checkpoint, then run the same command, or"
      " start in another --workdir"
    ) from error
  except checkpoint.FrozenError as error:
    raise SaveError(str(error)) from error
  step = found.step if found else 0
  damaged = [step for step, _ in passed]
  whole = [s for s in manager.all_steps() if s not in damaged]
  # The others are from before a rollback, or a kill prevented their removal.
  kept = [s for s in whole if found and s <= step][-manager.kept.latest :]
  if found:
    kept.append(tracking.read(found.record).keep_best.step)
  aside = pathlib.Path(manager.directory).parent / "damaged"
  if distributed.first():
    _remove(manager, [s for s in whole if s not in kept])
    _set_aside(manager, damaged, aside)
  # A barrier: no process may list checkpoints that another is still moving.
  distributed.wait_for_all("checkpoints are out of the way")
  manager.reload()
  if damaged:
    for _, reason in passed:
      saver.say(f"damaged: {reason}")
    saver.say(
      f"resuming from step {step}: {max(damaged) - step} steps are lost; the"
      f" damaged checkpoints were moved to {mirror.named(aside)}"
    )
  return found


def _set_aside(manager, steps: Sequence[int], folder: pathlib.Path) -> None:
  """Moves checkpoints to `folder` without overwriting its contents."""
  for step in steps:
    folder.mkdir(exist_ok=True)
    target, n = folder / str(step), 1
    while target.exists():
      target, n = folder / f"{step}.{n}", n + 1
    mirror.fetch(manager.directory / str(step))
    # Checkpoints may be on another disk than the rest of the workdir.
    shutil.move(manager.directory / str(step), target)


def _remove(manager, steps: Sequence[int]) -> None:
  """Removes checkpoints; if killed, leaves each intact or to be swept."""
  for step in steps:
    path = pathlib.Path(manager.directory) / str(step)
    unfinished = path.with_name(f"{step}{checkpoint.UNFINISHED}")
    shutil.rmtree(unfinished, ignore_errors=True)
    os.replace(path, unfinished)
    shutil.rmtree(unfinished, ignore_errors=True)


def save(
  saver: Saver, step: int, state: types.State, record: dict, leaving: bool
) -> None:
  """Starts a save; an error either ends the run or is reported.

  Raises:
    SaveError: the save failed, and the run stops on errors or is `leaving`.
  """
  try:
    checkpoint.check(saver.manager, wait=True)
  except OSError as error:  # of the previous save; this one may succeed
    _failed(saver, error, False)
  try:
    checkpoint.save(saver.manager, step, state, record)
  except OSError as error:
    _failed(saver, error, leaving)


def check_save(saver: Saver) -> None:
  """Checks whether a save in the background has failed.

  Raises:
    SaveError: it has failed, and the run stops on errors.
  """
  if saver.manager is not None:
    try:
      checkpoint.check(saver.manager)
    except OSError as error:
      _failed(saver, error, False)


def close(saver: Saver, abstract_state: PyTree | None = None) -> None:
  """Waits for the save in flight and closes the checkpoint manager.

  Args:
    saver: the Saver of the run.
    abstract_state: of the run, which is complete or stops as it was asked to;
      the last checkpoint is then read back. None if the run has failed.

  Raises:
    SaveError: the save failed, or the last checkpoint cannot be read back.
  """
  try:
    checkpoint.check(saver.manager, wait=True)
    if abstract_state is not None:
      _confirm(saver.manager, abstract_state)
  except OSError as error:
    _failed(saver, error, True)
  finally:
    saver.manager.close()


def _confirm(manager: Any, abstract_state: PyTree) -> None:
  """Reads the last checkpoint back, so that no run ends without one.

  Raises:
    SaveError: there is none, or it differs from what was saved.
  """
  manager.reload()
  step = manager.latest_step()
  if step is None:
    problem = f"{manager.directory}: no checkpoint is left"
  else:
    try:
      checkpoint.read_back(manager, abstract_state, step)
      return
    except (checkpoint.DamagedError, checkpoint.FrozenError) as error:
      problem = str(error)
  raise SaveError(
    f"the last checkpoint cannot be read back: {problem}; check the disk, then"
    " resume with the same command"
  )


def _failed(saver: Saver, error: OSError, leaving: bool) -> None:
  if distributed.first():
    checkpoint.sweep(saver.manager.directory)
  if saver.manager.directory.is_dir():
    # Orbax assumes that the checkpoints to remove after the save are removed.
    saver.manager.reload()
  have = saver.manager.latest_step()
  line = f"the checkpoint could not be saved: {error}; " + (
    "there is none yet" if have is None else f"the last one is from step {have}"
  )
  if saver.stop_on_error or leaving:
    raise SaveError(
      f"{line}; fix the cause, then resume with the same command"
    ) from error
  saver.say(line)


def keep_best(saver: Saver, tracked: tracking.Tracked) -> int | None:
  """Protects the best checkpoint from removal; returns its step once saved.

  Raises:
    SaveError: the save in flight failed, and the run stops on errors.
  """
  best = tracked.keep_best
  if best.value is None or saver.manager is None:
    return None
  if saver.manager.kept.best != best.step:
    try:
      checkpoint.check(saver.manager, wait=True)
    except OSError as error:
      _failed(saver, error, False)
    if best.step in saver.manager.all_steps():
      saver.manager.kept.best = best.step
  return saver.manager.kept.best


def measured(
  run: Any,
  saver: Saver,
  key: str,
  tracked: tracking.Tracked,
  step: int,
  state: types.State,
  seen: dict[int, types.Variables],
) -> types.Variables:
  """Returns the Variables that an evaluation measures.

  They are those of `state`, of `step`, except for an evaluation at the end only
  of a run that stops early: that measures the best checkpoint, if any is kept.

  Args:
    run: the loop.Run.
    saver: of the run.
    key: of the evaluation.
    tracked: which state is the best.
    step: of the state.
    state: the last one.
    seen: {step: what the evaluation before measured}, which is kept up to date,
      so that a state is read once for all evaluations that measure it.

  Raises:
    SaveError: as in `keep_best`.
    DamagedError: the best checkpoint differs from what was saved.
  """
  found = None
  at_end = tracking.of_best(run.rules, run.evaluations[key].every_steps)
  if at_end and saver.manager is not None:
    found = keep_best(saver, tracked)
  if found is not None and found != step:
    saver.say(f"{key} measures the best state, of step {found}")
  at = step if found is None else found
  if at not in seen:
    seen.clear()
    if at != step:
      state = checkpoint.restore(saver.manager, run.abstract_state, at).state
    seen[at] = run.learner.variables(state)
  return seen[at]


def pass_over(
  saver: Saver,
  limits: health.Limits,
  path: str | None,
  examples: int,
  skipped: Sequence[bad_batches.Skip],
  bad: health.Unwell,
) -> list[bad_batches.Skip]:
  """Adds an entry to `skipped`; the run then rolls back to before `bad`.

  Args:
    saver: the Saver of the run.
    limits: when the run rolls back, and how often.
    path: the path of skipped.jsonl, or None.
    examples: the number of examples in a batch.
    skipped: the batches that are already skipped.
    bad: what was observed.

  Raises:
    FloatingPointError: the run has rolled back there too often.
    SaveError: the save in flight failed.
  """
  again = sum(abs(bad.last - skip.step) <= limits.window for skip in skipped)
  if saver.manager is None or again >= limits.max_rollbacks:
    raise FloatingPointError(
      f"{bad}, after {again} rollbacks; earlier checkpoints are kept"
    )
  try:
    checkpoint.check(saver.manager, wait=True)
  except OSError as error:
    _failed(saver, error, False)
  # One checkpoint earlier each time, since the last one may contain the cause.
  good = sorted(s for s in saver.manager.all_steps() if s < bad.first)
  to = good[max(0, len(good) - 1 - again)] if good else 0
  start = bad_batches.batch_of(skipped, bad.first - 1) - limits.around
  batches = (
    max(start, bad_batches.batch_of(skipped, to)),
    bad_batches.batch_of(skipped, bad.last - 1) + 1 + limits.around,
  )
  skip = bad_batches.Skip(bad.last, to, batches, str(bad))
  if path and distributed.first():
    bad_batches.append(path, skip, examples)
  distributed.wait_for_all("the skipped batches are written")
  saver.say(
    f"{bad}: rolling back to step {to}, and skipping batches {batches[0]} to"
    f" {batches[1] - 1}"
  )
  return [*skipped, skip]
