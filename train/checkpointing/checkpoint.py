"""Saves and restores checkpoints with Orbax: the state and its record.

A save is asynchronous and atomic: a directory is renamed to its final name
after all of it is written, so a process killed during a save leaves the
previous checkpoint intact. The record (a JSON object) contains the position in
the data and a digest of every array. Restored arrays are compared with their
digests, so a run never continues from data that has changed on disk.
"""

import contextlib
import os
import pathlib
import shutil
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp

from common import mirror, storage
from common.errors import UserError
from train.checkpointing import (
  digests,
  literal_paths,
  records,
  retention,
  storage_errors,
)
from train.hosts import distributed
from train.types import PyTree, State

literal_paths.install()

FORMAT, DamagedError = records.FORMAT, records.DamagedError
read_record = records.read

# The size of the arrays that are read back at the end of a run.
_READ_BACK = 2**26
# Part of the name of a directory until all of it is written.
UNFINISHED = ".orbax-checkpoint-tmp"


class Restored(NamedTuple):
  """A restored checkpoint; `record` is what was passed to `save`."""

  step: int
  state: State
  record: dict[str, Any]


def open_manager(directory: str, keep: int = 2) -> ocp.CheckpointManager:
  """Opens the checkpoints of one run in a local folder.

  Args:
    directory: the folder, which is created if it does not exist.
    keep: how many of the latest checkpoints are kept.
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
      "state": _state_handler(),
      "data": ocp.JsonCheckpointHandler(),
    },
  )
  manager.kept = kept
  return manager


def _state_handler() -> ocp.PyTreeCheckpointHandler:
  # Weights hardly compress, and trying to takes whole cores.
  return ocp.PyTreeCheckpointHandler(use_compression=False)


def sweep(directory: str | os.PathLike) -> None:
  """Deletes what a killed process left of unfinished saves and removals.

  Only the run that writes the directory may call it: a reader cannot
  distinguish an unfinished save from one in progress.
  """
  for litter in pathlib.Path(directory).glob(f"*{UNFINISHED}*"):
    shutil.rmtree(litter, ignore_errors=True)


def save(
  manager: ocp.CheckpointManager,
  step: int,
  state: State,
  record: dict[str, Any],
) -> None:
  """Starts to write `state`; returns after it is copied from the device.

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
  arrays = {
    path: [str(x.dtype), list(x.shape), found[path]]
    for path, x in digests.named(state)
  }
  args = ocp.args.Composite(
    state=ocp.args.PyTreeSave(state),
    data=ocp.args.JsonSave(records.sealed(record, arrays)),
  )

  def start():
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
  manager: ocp.CheckpointManager, abstract_state: PyTree, step: int
) -> Restored:
  """Restores the checkpoint of `step` and verifies it against its record.

  Every process must call it.

  Args:
    manager: from `open_manager`.
    abstract_state: ShapeDtypeStructs with the shardings to restore to, which
      may differ from those it was saved with.
    step: which checkpoint.

  Raises:
    DamagedError: it differs from what was saved; raised on all processes.
    UserError: there is no such checkpoint, or its arrays have other shapes.
  """
  if step not in manager.all_steps():
    have = ", ".join(map(str, manager.all_steps())) or "none"
    raise UserError(
      f"{manager.directory}: no checkpoint of step {step} (valid: {have})"
    )
  return _restore(manager, abstract_state, step, _record(manager, step))


def _record(manager, step) -> dict[str, Any]:
  """Calls `read_record`; all processes agree on the outcome."""
  where = f"{manager.directory / str(step)}"
  return _on_all(where, lambda: read_record(manager.directory, step))


def _on_all(where: str, read: Callable[[], Any]) -> Any:
  """Calls `read`; if it fails on one process, DamagedError on all.

  `read` must not wait for other processes, which may have failed.
  """
  found, problem = None, None
  try:
    found = read()
  except DamagedError as error:
    problem = str(error)
  except UserError:
    raise
  except Exception as error:  # errors of many types
    problem = storage_errors.one_line(error, f"{where}: cannot be read")
  if not distributed.all_agree(problem is None):
    raise DamagedError(problem or f"{where}: another process cannot read it")
  return found


def _restore(manager, abstract_state, step, record) -> Restored:
  where = manager.directory / str(step)
  record = dict(record)
  arrays = record.pop(records.ARRAYS, None)
  record.pop(records.FORMAT_KEY, None)
  _check_shapes(f"{where}", abstract_state, arrays)
  args = ocp.args.PyTreeRestore(
    abstract_state,
    restore_args=ocp.checkpoint_utils.construct_restore_args(abstract_state),
  )

  def read():
    mirror.fetch(where)
    # By the handler: the manager waits for all processes once it has read.
    return _state_handler().restore(where / "state", args=args)

  state = _on_all(f"{where}", read)
  if arrays is not None:
    wanted = {path: digest for path, (*_, digest) in arrays.items()}
    _compare(where, state, wanted)
  return Restored(step, state, record)


def _check_shapes(where: str, abstract_state: PyTree, arrays) -> None:
  """Raises UserError if a checkpoint has other arrays than the state."""
  if arrays is None:
    return
  ours = {
    path: [str(x.dtype), list(x.shape)]
    for path, x in digests.named(abstract_state)
  }
  for path in sorted(ours.keys() | arrays.keys()):
    there = arrays[path][:2] if path in arrays else None
    if ours.get(path) != there:
      raise UserError(
        f"{where}: {path} is {_described(there)} there and"
        f" {_described(ours.get(path))} in this run: it was saved by another"
        " config or release"
      )


def _described(array) -> str:
  return "missing" if array is None else f"{array[0]}{array[1]}"


def restore_last(
  manager: ocp.CheckpointManager,
  abstract_state: PyTree,
  *,
  strict: bool = False,
  stands: Callable[[int, dict[str, Any]], bool] = lambda step, record: True,
) -> tuple[Restored | None, list[tuple[int, str]]]:
  """Restores the last checkpoint that is intact.

  Args:
    manager: from `open_manager`.
    abstract_state: as in `restore`.
    strict: raise an error for the first damaged checkpoint.
    stands: (step, record) -> whether the checkpoint may be restored.

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
      record = _record(manager, step)
      if stands(step, record):
        return _restore(manager, abstract_state, step, record), passed
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
  arrays = _record(manager, step).get(records.ARRAYS)
  if arrays is None:  # written before digests were introduced
    return
  chosen = _few(abstract_state)
  some = jax.tree_util.tree_map_with_path(
    lambda path, x: x if digests.path_of(path) in chosen else ocp.PLACEHOLDER,
    abstract_state,
  )
  args = ocp.args.PyTreeRestore(
    some,
    restore_args=jax.tree.map(
      lambda x: ocp.checkpoint_utils.construct_restore_args(x), some
    ),
  )

  def read():
    mirror.fetch(where)
    return _state_handler().restore(where / "state", args=args)

  found = _on_all(f"{where}", read)
  found = jax.tree.map(lambda x: None if x is ocp.PLACEHOLDER else x, found)
  wanted = {path: arrays.get(path, ("",))[-1] for path in chosen}
  _compare(where, found, wanted)


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


def _compare(where, state: PyTree, wanted: dict[str, str]) -> None:
  """Raises DamagedError unless the arrays of `state` have these digests."""
  changed = digests.differing(digests.of(state), wanted)
  if changed:
    more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
    raise DamagedError(
      f"{where}: {changed[0]}{more} is not what was saved: its digest differs"
    )


@storage_errors.hushed()
def verify(directory: str | os.PathLike, step: int) -> list[str]:
  """Returns lines that describe the damage of a checkpoint; [] if intact.

  This needs neither the model nor the devices of the run, and reads the whole
  checkpoint into memory.

  Raises:
    UserError: it was written by a later release.
  """
  where = pathlib.Path(directory).absolute() / str(step)
  try:
    arrays = read_record(directory, step).get(records.ARRAYS)
    mirror.fetch(where)
    reader = _state_handler()
    place = jax.sharding.SingleDeviceSharding(jax.devices("cpu")[0])
    args = ocp.args.PyTreeRestore(
      restore_args=jax.tree.map(
        lambda _: ocp.ArrayRestoreArgs(sharding=place),
        reader.metadata(where / "state").tree,
      )
    )
    state = reader.restore(where / "state", args=args)
  except DamagedError as error:
    return [str(error)]
  except UserError:
    raise
  except Exception as error:
    return [storage_errors.one_line(error, f"{where}: cannot be read")]
  if arrays is None:
    return []
  wanted = {path: digest for path, (*_, digest) in arrays.items()}
  return [
    f"{where}: {path} is not what was saved: its digest differs"
    for path in digests.differing(digests.of(state), wanted)
  ]
