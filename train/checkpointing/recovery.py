"""How a run goes on when a save, a checkpoint or a loss went wrong.

All processes of a run call these together.
"""

import os
import pathlib
import shutil
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from common.errors import SaveError
from train import types
from train.checkpointing import bad_batches, checkpoint, health, tracking
from train.hosts import distributed
from train.types import PyTree


class Saver(NamedTuple):
  """The checkpoints of a run, or None, and what becomes of their errors.

  stop_on_error: an error of a save ends the run; else it is only reported.
  say: (line) -> None; prints for people.
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
  """The last checkpoint that is whole; those after it are out of the way.

  Raises:
    UserError: one is damaged and `strict`, or all are.
  """
  manager = saver.manager
  found, passed = checkpoint.restore_last(
    manager,
    abstract_state,
    strict=strict,
    stands=lambda step, record: bad_batches.stands(skipped, step, record),
  )
  step = found.step if found else 0
  damaged = [step for step, _ in passed]
  whole = [s for s in manager.all_steps() if s not in damaged]
  # What the run has gone back from, and what a kill kept from being removed.
  kept = [s for s in whole if found and s <= step][-manager.kept.latest :]
  if found:
    kept.append(tracking.read(found.record).keep_best.step)
  aside = pathlib.Path(manager.directory).parent / "damaged"
  if distributed.first():
    _remove(manager, [s for s in whole if s not in kept])
    _set_aside(manager, damaged, aside)
  # All at once: a process must not list what another still moves.
  distributed.wait_for_all("checkpoints are out of the way")
  manager.reload()
  if damaged:
    for _, reason in passed:
      saver.say(f"damaged: {reason}")
    saver.say(
      f"going on from step {step}: {max(damaged) - step} steps are lost; the"
      f" damaged checkpoints are in {aside}"
    )
  return found


def _set_aside(manager, steps: Sequence[int], folder: pathlib.Path) -> None:
  """Moves checkpoints to `folder`, beside what lies there."""
  for step in steps:
    folder.mkdir(exist_ok=True)
    target, n = folder / str(step), 1
    while target.exists():
      target, n = folder / f"{step}.{n}", n + 1
    # Checkpoints may lie on another disk than the rest of the workdir.
    shutil.move(manager.directory / str(step), target)


def _remove(manager, steps: Sequence[int]) -> None:
  """Removes checkpoints; a kill in between leaves each whole, or to sweep."""
  for step in steps:
    path = pathlib.Path(manager.directory) / str(step)
    unfinished = path.with_name(f"{step}{checkpoint.UNFINISHED}")
    shutil.rmtree(unfinished, ignore_errors=True)
    os.replace(path, unfinished)
    shutil.rmtree(unfinished, ignore_errors=True)


def save(
  saver: Saver, step: int, state: types.State, record: dict, leaving: bool
) -> None:
  """Starts a save; one that fails ends the run, or is told.

  Raises:
    SaveError: it failed, and the run is to stop then or is `leaving` anyway.
  """
  try:
    checkpoint.check(saver.manager, wait=True)
  except OSError as error:  # of the one before: this one may still succeed
    _failed(saver, error, False)
  try:
    checkpoint.save(saver.manager, step, state, record)
  except OSError as error:
    _failed(saver, error, leaving)


def check_save(saver: Saver) -> None:
  """Tells of a save in the background that has failed.

  Raises:
    SaveError: it did, and the run is to stop then.
  """
  if saver.manager is not None:
    try:
      checkpoint.check(saver.manager)
    except OSError as error:
      _failed(saver, error, False)


def close(saver: Saver) -> None:
  """Waits for the save in flight, and closes the checkpoints.

  Raises:
    SaveError: it failed.
  """
  try:
    checkpoint.check(saver.manager, wait=True)
  except OSError as error:
    _failed(saver, error, True)
  finally:
    saver.manager.close()


def _failed(saver: Saver, error: OSError, leaving: bool) -> None:
  if distributed.first():
    checkpoint.sweep(saver.manager.directory)
  if saver.manager.directory.is_dir():
    # Orbax takes those for removed that it was to remove after the save.
    saver.manager.reload()
  have = saver.manager.latest_step()
  line = f"a checkpoint cannot be saved: {error}; " + (
    "there is none yet" if have is None else f"the last is of step {have}"
  )
  if saver.stop_on_error or leaving:
    raise SaveError(f"{line}; mend it, and the same command goes on") from error
  saver.say(line)


def keep_best(saver: Saver, tracked: tracking.Tracked) -> int | None:
  """Keeps the best checkpoint from being removed; its step, once it is saved.

  Raises:
    SaveError: the save in flight failed, and the run is to stop then.
  """
  best = tracked.keep_best
  if best.value is None:
    return None
  if saver.manager.kept.best != best.step:
    try:
      checkpoint.check(saver.manager, wait=True)
    except OSError as error:
      _failed(saver, error, False)
    if best.step in saver.manager.all_steps():
      saver.manager.kept.best = best.step
  return saver.manager.kept.best


def pass_over(
  saver: Saver,
  limits: health.Limits,
  path: str | None,
  examples: int,
  skipped: Sequence[bad_batches.Skip],
  bad: health.Unwell,
) -> list[bad_batches.Skip]:
  """The skips and one more: the run is to go back to before `bad`.

  Args:
    saver: of the run.
    limits: when it goes back, and how often.
    path: skipped.jsonl, or None.
    examples: in a batch.
    skipped: what it passes over already.
    bad: what was found.

  Raises:
    FloatingPointError: it has gone back there often enough.
    SaveError: the save in flight failed.
  """
  again = sum(abs(bad.last - skip.step) <= limits.window for skip in skipped)
  if saver.manager is None or again >= limits.max_rollbacks:
    raise FloatingPointError(
      f"{bad}, after going back {again} times; what was saved before stays"
    )
  try:
    checkpoint.check(saver.manager, wait=True)
  except OSError as error:
    _failed(saver, error, False)
  # One checkpoint earlier each time: the last one may hold the cause.
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
  distributed.wait_for_all("what is passed over is written")
  saver.say(
    f"{bad}: goes back to step {to}, and passes over batches {batches[0]} to"
    f" {batches[1] - 1}"
  )
  return [*skipped, skip]
