"""Saves and restores checkpoints with Orbax: the state and its record.

A save is asynchronous and atomic: a directory is renamed to its final name
after all of it is written, so a process killed during a save leaves the
previous checkpoint intact. The record (a JSON object) contains the position in
the data and a digest of every array. Restored arrays are compared with their
digests, so a run never continues from data that has changed on disk. Arrays
that do not change are saved once for all checkpoints; see frozen.py.
"""

import contextlib
import os
import pathlib
import shutil
import sys
import threading
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp

from common import mirror, storage
from common.errors import UserError
from train.checkpointing import (
  arrays,
  digests,
  frozen,
  reading,
  records,
  retention,
  storage_errors,
)
from train.types import PyTree, State

FORMAT, DamagedError = records.FORMAT, records.DamagedError
FrozenError = records.FrozenError
read_record, verify = records.read, reading.verify

# The size of the arrays that are read back at the end of a run.
_READ_BACK = 2**26
# Part of the name of a directory until all of it is written.
UNFINISHED = ".orbax-checkpoint-tmp"


class Restored(NamedTuple):
  """A restored checkpoint; `record` is what was passed to `save`."""

  step: int
  state: State
  record: dict[str, Any]


def open_manager(
  directory: str, keep: int = 2, unchanging: Collection[str] = ()
) -> ocp.CheckpointManager:
  """Opens the checkpoints of one run in a local folder.

  Args:
    directory: the folder, which is created if it does not exist.
    keep: how many of the latest checkpoints are kept.
    unchanging: the paths of the arrays that are saved once for all checkpoints.
  """
  storage.check_local("checkpoints", directory)
  storage_errors.hush()
  path = pathlib.Path(directory).absolute()
  kept = retention.Kept(keep)
  manager = ocp.CheckpointManager(
    path,
    options=ocp.CheckpointManagerOptions(
      preservation_policy=kept,
      create=True,
      # Otherwise threads wait for minutes for a directory that cannot be
      # created, and the process waits for them.
      async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
    ),
    item_handlers={
      "state": arrays.handler(),
      "data": ocp.JsonCheckpointHandler(),
    },
  )
  manager.kept, manager.frozen = kept, frozenset(unchanging)
  return manager


def sweep(directory: str | os.PathLike) -> None:
  """Deletes what a killed process left of unfinished saves and removals.

  Only the run that writes the directory may call it: a reader cannot
  distinguish an unfinished save from one in progress.
  """
  for litter in pathlib.Path(directory).glob(f"*{UNFINISHED}*"):
    shutil.rmtree(litter, ignore_errors=True)
  frozen.sweep(directory, UNFINISHED)


def save(
  manager: ocp.CheckpointManager,
  step: int,
  state: State,
  record: dict[str, Any],
) -> None:
  """Starts to write `state`; returns after it is copied from the device.

  The first save also writes the arrays that do not change, and waits for them.

  Args:
    manager: from `open_manager`.
    step: the number of updates that led to the state.
    state: the state of the learner.
    record: the other facts that are needed to resume, as JSON.

  Raises:
    OSError: this save or the previous one could not be written.
  """
  check(manager, wait=True)
  found = digests.of(state)
  known = {
    path: [str(x.dtype), list(x.shape), found[path]]
    for path, x in digests.named(state)
  }

  def start():
    kept = frozen.keep(manager, state, known)
    full = {**record, frozen.FOLDER: kept} if kept else record
    own = arrays.without(state, frozen.paths(full))
    args = ocp.args.Composite(
      state=ocp.args.PyTreeSave(own),
      data=ocp.args.JsonSave(records.sealed(full, known)),
    )
    # Orbax raises an error once in each thread. The error of the previous save
    # has been reported, but not to this thread.
    with contextlib.suppress(Exception):
      manager.wait_until_finished()
    manager.save(step, args=args)

  with (
    storage_errors.as_os_errors(manager, str(manager.directory / str(step))),
    ThreadPoolExecutor(1, initializer=_give_way) as thread,
  ):
    thread.submit(start).result()


def check(manager: ocp.CheckpointManager, wait: bool = False) -> None:
  """Raises OSError, once, if the last save could not be written.

  If `wait`, this first waits for a save in progress to finish. If the workdir
  is in a bucket, it waits until the checkpoint has been copied there.
  """
  if wait or not manager.is_saving_in_progress():
    with storage_errors.as_os_errors(manager, str(manager.directory)):
      manager.wait_until_finished()
  if wait:
    mirror.push(manager.directory)


def _give_way() -> None:
  """Lowers the priority of this thread and of the threads it starts.

  Saving must not compete with training for the CPU.
  """
  if sys.platform.startswith(
    "linux"
  ):  # other systems set the priority of a process
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)


def restore(
  manager: ocp.CheckpointManager,
  abstract_state: PyTree,
  step: int,
  needed: Collection[str] | None = None,
) -> Restored:
  """Restores the checkpoint of `step` and verifies it against its record.

  Every process must call it.

  Args:
    manager: from `open_manager`.
    abstract_state: ShapeDtypeStructs with the shardings to restore to, which
      may differ from those it was saved with.
    step: which checkpoint.
    needed: the paths of the arrays to read, one after another, so that hardly
      more memory is needed than they take. The others are blank arrays, which
      take none. None reads the whole state, as fast as possible.

  Raises:
    DamagedError: it differs from what was saved; raised on all processes.
    FrozenError: the arrays that all checkpoints share are missing or damaged.
    UserError: there is no such checkpoint, or its arrays have other shapes.
  """
  if step not in manager.all_steps():
    have = ", ".join(map(str, manager.all_steps())) or "none"
    raise UserError(
      f"{manager.directory}: no checkpoint of step {step} (valid: {have})"
    )
  record = reading.record(manager, step)
  return _restore(manager, abstract_state, step, record, needed)


def _restore(manager, abstract_state, step, record, needed=None) -> Restored:
  where = manager.directory / str(step)
  known = record.get(records.ARRAYS)
  reading.check_shapes(f"{where}", abstract_state, known)
  wanted = dict(digests.named(abstract_state))
  if needed is not None:
    wanted = {path: wanted[path] for path in needed}
  found = reading.read(where, record, wanted, frugal=needed is not None)
  reading.compare(where, record, found)
  facts = {k: v for k, v in record.items() if k not in records.OWN}
  if needed is not None:
    return Restored(step, arrays.filled(abstract_state, found), facts)
  state = jax.tree.unflatten(jax.tree.structure(abstract_state), found.values())
  return Restored(step, state, facts)


def restore_last(
  manager: ocp.CheckpointManager,
  abstract_state: PyTree,
  *,
  strict: bool = False,
  stands: Callable[[int, dict[str, Any]], bool] = lambda step, record: True,
  needed: Collection[str] | None = None,
) -> tuple[Restored | None, list[tuple[int, str]]]:
  """Restores the last checkpoint that is intact.

  Args:
    manager: from `open_manager`.
    abstract_state: as in `restore`.
    strict: raise an error for the first damaged checkpoint.
    stands: (step, record) -> whether the checkpoint may be restored.
    needed: as in `restore`.

  Returns:
    (the restored checkpoint or None, [(step, reason)] of the damaged
    checkpoints that were tried before it).

  Raises:
    DamagedError: with `strict`, or if none of several checkpoints is intact.
    UserError: as in `restore`.
  """
  passed: list[tuple[int, str]] = []
  for step in sorted(manager.all_steps(), reverse=True):
    try:
      record = reading.record(manager, step)
      if stands(step, record):
        found = _restore(manager, abstract_state, step, record, needed)
        return found, passed
    except DamagedError as error:
      if strict:
        raise DamagedError(f"{error} (--strict)") from error
      passed.append((step, str(error)))
  if passed:
    raise DamagedError(
      f"no checkpoint is intact: {'; '.join(r for _, r in passed)}"
    )
  return None, passed


def read_back(
  manager: ocp.CheckpointManager, abstract_state: PyTree, step: int
) -> None:
  """Reads a checkpoint's record and some of its arrays, and verifies them.

  All arrays of a small state are read, and a few of a large one. Every process
  must call it.

  Args:
    manager: from `open_manager`.
    abstract_state: the ShapeDtypeStructs of the state.
    step: which checkpoint.

  Raises:
    DamagedError: it differs from what was saved; raised on all processes.
  """
  where = manager.directory / str(step)
  record = reading.record(manager, step)
  if record.get(records.ARRAYS) is None:  # written before digests existed
    return
  leaves = dict(digests.named(abstract_state))
  chosen = {path: leaves[path] for path in _few(abstract_state)}
  reading.compare(where, record, reading.read(where, record, chosen))


def _few(abstract_state: PyTree) -> set[str]:
  """Returns paths of leaves of at most `_READ_BACK` bytes together.

  The parameters come first, and of these the smallest; at least one leaf.
  """
  sizes = {path: x.size * 8 for path, x in digests.named(abstract_state)}
  chosen, total = set(), 0
  for path in sorted(sizes, key=lambda p: ("/params/" not in p, sizes[p])):
    total += sizes[path]
    if not chosen or total <= _READ_BACK:
      chosen.add(path)
  return chosen
