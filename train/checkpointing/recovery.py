"""How a run goes on when a save, a checkpoint or a loss went wrong.

`run` is a loop.Run. All processes of a run call these together.
"""

import os
import pathlib
import shutil
from collections.abc import Sequence
from typing import Any

from common.errors import SaveError
from train.checkpointing import bad_batches, checkpoint, health
from train.hosts import distributed


def restored(
  run: Any, skipped: Sequence[bad_batches.Skip]
) -> checkpoint.Restored | None:
  """The last checkpoint that is whole; those after it are out of the way.

  Raises:
    UserError: one is damaged and `run.strict`, or all are.
  """
  manager = run.checkpoints
  found, passed = checkpoint.restore_last(
    manager,
    run.abstract_state,
    strict=run.strict,
    stands=lambda step, record: bad_batches.stands(skipped, step, record),
  )
  step = found.step if found else 0
  damaged = [step for step, _ in passed]
  whole = [s for s in manager.all_steps() if s not in damaged]
  # What the run has gone back from, and what a kill kept from being removed.
  kept = [s for s in whole if found and s <= step][-manager.keep :]
  aside = pathlib.Path(manager.directory).parent / "damaged"
  if distributed.first():
    _remove(manager, [s for s in whole if s not in kept])
    _set_aside(manager, damaged, aside)
  # All at once: a process must not list what another still moves.
  distributed.wait_for_all("checkpoints are out of the way")
  manager.reload()
  if damaged:
    for _, reason in passed:
      run.say(f"damaged: {reason}")
    run.say(
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


def save(run: Any, step: int, state: Any, record: dict, leaving: bool) -> None:
  """Starts a save; one that fails ends the run, or is told.

  Raises:
    SaveError: it failed, and the run is to stop then or is `leaving` anyway.
  """
  try:
    checkpoint.check(run.checkpoints, wait=True)
  except OSError as error:  # of the one before: this one may still succeed
    _failed(run, error, False)
  try:
    checkpoint.save(run.checkpoints, step, state, record)
  except OSError as error:
    _failed(run, error, leaving)


def check_save(run: Any) -> None:
  """Tells of a save in the background that has failed.

  Raises:
    SaveError: it did, and the run is to stop then.
  """
  if run.checkpoints is not None:
    try:
      checkpoint.check(run.checkpoints)
    except OSError as error:
      _failed(run, error, False)


def close(run: Any) -> None:
  """Waits for the save in flight, and closes the checkpoints.

  Raises:
    SaveError: it failed.
  """
  try:
    checkpoint.check(run.checkpoints, wait=True)
  except OSError as error:
    _failed(run, error, True)
  finally:
    run.checkpoints.close()


def _failed(run, error, leaving) -> None:
  if distributed.first():
    checkpoint.sweep(run.checkpoints.directory)
  if run.checkpoints.directory.is_dir():
    # Orbax takes those for removed that it was to remove after the save.
    run.checkpoints.reload()
  have = run.checkpoints.latest_step()
  line = f"a checkpoint cannot be saved: {error}; " + (
    "there is none yet" if have is None else f"the last is of step {have}"
  )
  if run.stop_on_save_error or leaving:
    raise SaveError(f"{line}; mend it, and the same command goes on") from error
  run.say(line)


def pass_over(
  run: Any, skipped: Sequence[bad_batches.Skip], bad: health.Unwell
) -> list[bad_batches.Skip]:
  """The skips and one more: the run is to go back to before `bad`.

  Raises:
    FloatingPointError: it has gone back there often enough.
    SaveError: the save in flight failed.
  """
  limits = run.limits
  again = sum(abs(bad.last - skip.step) <= limits.window for skip in skipped)
  if run.checkpoints is None or again >= limits.max_rollbacks:
    raise FloatingPointError(
      f"{bad}, after going back {again} times; what was saved before stays"
    )
  try:
    checkpoint.check(run.checkpoints, wait=True)
  except OSError as error:
    _failed(run, error, False)
  # One checkpoint earlier each time: the last one may hold the cause.
  good = sorted(s for s in run.checkpoints.all_steps() if s < bad.first)
  to = good[max(0, len(good) - 1 - again)] if good else 0
  start = bad_batches.batch_of(skipped, bad.first - 1) - limits.around
  batches = (
    max(start, bad_batches.batch_of(skipped, to)),
    bad_batches.batch_of(skipped, bad.last - 1) + 1 + limits.around,
  )
  skip = bad_batches.Skip(bad.last, to, batches, str(bad))
  if run.skipped and distributed.first():
    bad_batches.append(run.skipped, skip, run.units_per_step["examples"])
  distributed.wait_for_all("what is passed over is written")
  run.say(
    f"{bad}: goes back to step {to}, and passes over batches {batches[0]} to"
    f" {batches[1] - 1}"
  )
  return [*skipped, skip]
