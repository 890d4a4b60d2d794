"""Checkpoints: the whole state and the position in the data, by Orbax.

A save is asynchronous and atomic: a directory gets its final name only when
every byte of it is written, so a kill in the middle leaves the one before.
"""

import os
import pathlib
import shutil
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import orbax.checkpoint as ocp

from train.errors import UserError
from train.types import PyTree, State


def open_manager(directory: str, keep: int = 2) -> ocp.CheckpointManager:
  """The checkpoints of one run; the last `keep` stay."""
  path = pathlib.Path(directory).absolute()
  options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
  return ocp.CheckpointManager(path, options=options)


def sweep(directory: str) -> None:
  """Removes what a killed save left unfinished.

  For the run that writes there alone: to a reader, it may be a save in flight.
  """
  for litter in pathlib.Path(directory).glob("*.orbax-checkpoint-tmp*"):
    shutil.rmtree(litter, ignore_errors=True)


def save(
  manager: ocp.CheckpointManager, step: int, state: State, position: int
) -> None:
  """Starts to write `state`; returns once it is copied off the device.

  `position` is the number of examples consumed: a host integer, for 2^31
  examples are not the end of a large run.
  """
  args = ocp.args.Composite(
    state=ocp.args.StandardSave(state),
    data=ocp.args.JsonSave({"position": position}),
  )
  with ThreadPoolExecutor(1, initializer=_give_way) as thread:
    thread.submit(manager.save, step, args=args).result()


def _give_way() -> None:
  """Lowers this thread's priority, and so that of the threads it starts.

  Compressing and writing must not take the processor from training.
  """
  if sys.platform.startswith("linux"):  # elsewhere it is of whole processes
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 5)


def restore(
  manager: ocp.CheckpointManager,
  abstract_state: PyTree,
  step: int | None = None,
) -> tuple[State, int]:
  """(state, position) at `step`, or the last one.

  Args:
    manager: from `open_manager`.
    abstract_state: ShapeDtypeStructs with the shardings to restore to; they
      need not be those that it was saved with.
    step: which one, or None for the last.

  Raises:
    UserError: there is no such checkpoint, or its arrays are not of these
      shapes.
  """
  step = manager.latest_step() if step is None else step
  if step is None or step not in manager.all_steps():
    have = ", ".join(map(str, manager.all_steps())) or "none"
    raise UserError(
      f"{manager.directory}: no checkpoint of step {step} (there are: {have})"
    )
  try:
    restored = manager.restore(
      step,
      args=ocp.args.Composite(
        state=ocp.args.StandardRestore(abstract_state),
        data=ocp.args.JsonRestore(),
      ),
    )
  except (ValueError, KeyError, TypeError, OSError) as error:
    first_line = str(error).strip().split("\n")[0]
    raise UserError(
      f"{manager.directory / str(step)}: cannot be restored: {first_line}"
    ) from error
  return restored["state"], int(restored["data"]["position"])
