"""Checkpoints: the whole state and a record of it, by Orbax.

A save is asynchronous and atomic: a directory gets its final name only when
every byte of it is written, so a kill in the middle leaves the one before. The
record (a JSON object) says where in the data the run stood and holds a digest
of every array; what is restored is held against it, so that a byte that has
changed on the disk is never trained on.
"""

import contextlib
import hashlib
import json
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

from common.errors import UserError
from train.checkpointing import digests, retention, storage_errors
from train.hosts import distributed
from train.types import PyTree, State

# Of a record. A reader knows all that came before its own.
FORMAT = 1
_ARRAYS, _FORMAT, _SEAL = "arrays", "format", "seal"
# Of what is read of a record before the rest.
_TYPES = {
  "position": int,
  "evaluated": bool,
  "health": dict,
  "rollbacks": int,
  _FORMAT: int,
  _ARRAYS: dict,
}
_MAX_RECORD_BYTES = 2**26
# In the name of a directory until all of it is written.
UNFINISHED = ".orbax-checkpoint-tmp"


class DamagedError(UserError):
  """A checkpoint that is not what was saved; the line says what of it."""


class Restored(NamedTuple):
  """A checkpoint read back: `record` is what `save` was given."""

  step: int
  state: State
  record: dict[str, Any]


def open_manager(directory: str, keep: int = 2) -> ocp.CheckpointManager:
  """The checkpoints of one run; the last `keep` stay."""
  storage_errors.hush()
  path = pathlib.Path(directory).absolute()
  kept = retention.Kept(keep)
  manager = ocp.CheckpointManager(
    path,
    options=ocp.CheckpointManagerOptions(
      preservation_policy=kept,
      create=True,
      # Else threads wait for minutes for a directory that cannot be made, and
      # the process for them.
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
  # Weights hardly get smaller, and compressing them takes whole cores.
  return ocp.PyTreeCheckpointHandler(use_compression=False)


def sweep(directory: str | os.PathLike) -> None:
  """Removes what a killed save, or removal, left unfinished.

  For the run that writes there alone: to a reader, it may be a save in flight.
  """
  for litter in pathlib.Path(directory).glob(f"*{UNFINISHED}*"):
    shutil.rmtree(litter, ignore_errors=True)


def save(
  manager: ocp.CheckpointManager,
  step: int,
  state: State,
  record: dict[str, Any],
) -> None:
  """Starts to write `state`; returns once it is copied off the device.

  Args:
    manager: from `open_manager`.
    step: of the state.
    state: what a step carries.
    record: what else is needed to go on, as JSON has it.

  Raises:
    OSError: this save, or the one before, could not be written.
  """
  check(manager, wait=True)
  found = digests.of(state)
  arrays = {
    path: [str(x.dtype), list(x.shape), found[path]]
    for path, x in digests.named(state)
  }
  content = {**record, _FORMAT: FORMAT, _ARRAYS: arrays}
  args = ocp.args.Composite(
    state=ocp.args.PyTreeSave(state),
    data=ocp.args.JsonSave({**content, _SEAL: _seal(content)}),
  )

  def start():
    # Orbax raises an error once in each thread; that of the save before is
    # told by now, but this thread has not seen it.
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

  One still in flight is waited for if `wait`, else left alone.
  """
  if wait or not manager.is_saving_in_progress():
    with storage_errors.as_os_errors(manager, str(manager.directory)):
      manager.wait_until_finished()


def _seal(content: dict[str, Any]) -> str:
  text = json.dumps(content, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()


def _give_way() -> None:
  """Lowers this thread's priority, and so that of the threads it starts.

  Writing must not take the processor from training.
  """
  if sys.platform.startswith("linux"):  # elsewhere it is of whole processes
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)


def read_record(directory: str | os.PathLike, step: int) -> dict[str, Any]:
  """What `save` was given, of the checkpoint of `step`.

  Raises:
    DamagedError: it is missing, or not what was written.
    UserError: a later release has written it.
  """
  path = pathlib.Path(directory) / str(step) / "data" / "metadata"
  try:
    if path.stat().st_size > _MAX_RECORD_BYTES:
      raise ValueError("too large for a record")
    content = json.loads(path.read_bytes())
    if isinstance(content, dict) and set(content) == {"position"}:
      return content  # before there were digests
    seal = content.pop(_SEAL, None) if isinstance(content, dict) else None
    if seal is None or seal != _seal(content):
      raise ValueError("the record is not what was written")
    wrong = [
      k for k, kind in _TYPES.items() if type(content.get(k)) is not kind
    ]
  except (OSError, ValueError, RecursionError) as error:
    raise DamagedError(storage_errors.one_line(error, f"{path}")) from error
  if type(content.get(_FORMAT)) is int and content[_FORMAT] > FORMAT:
    raise UserError(
      f"{path}: format {content[_FORMAT]}, of a later release than this one,"
      f" which knows {FORMAT}: update Tessera"
    )
  if wrong or not all(map(_is_described, content[_ARRAYS].values())):
    raise DamagedError(f"{path}: {(wrong or [_ARRAYS])[0]!r} makes no sense")
  return content


def _is_described(array: Any) -> bool:
  """Whether `array` is [dtype, shape, digest], as `save` writes it."""
  return (
    isinstance(array, list)
    and [type(part) for part in array] == [str, list, str]
    and all(type(size) is int for size in array[1])
  )


def restore(
  manager: ocp.CheckpointManager, abstract_state: PyTree, step: int
) -> Restored:
  """The checkpoint of `step`, held against its record.

  Every process must call it.

  Args:
    manager: from `open_manager`.
    abstract_state: ShapeDtypeStructs with the shardings to restore to; they
      need not be those that it was saved with.
    step: which one.

  Raises:
    DamagedError: it is not what was saved; on every process, if on one.
    UserError: there is no such checkpoint, or its arrays are of other shapes.
  """
  if step not in manager.all_steps():
    have = ", ".join(map(str, manager.all_steps())) or "none"
    raise UserError(
      f"{manager.directory}: no checkpoint of step {step} (there are: {have})"
    )
  return _restore(manager, abstract_state, step, _record(manager, step))


def _record(manager, step) -> dict[str, Any]:
  """`read_record`, on which all processes agree."""
  where = f"{manager.directory / str(step)}"
  return _on_all(where, lambda: read_record(manager.directory, step))


def _on_all(where: str, read: Callable[[], Any]) -> Any:
  """What `read` returns; if it fails on one process, DamagedError on all.

  It must not wait for other processes: they may have failed and gone on.
  """
  found, problem = None, None
  try:
    found = read()
  except DamagedError as error:
    problem = str(error)
  except UserError:
    raise
  except Exception as error:  # of many kinds, by what is broken
    problem = storage_errors.one_line(error, f"{where}: cannot be read")
  if not distributed.all_agree(problem is None):
    raise DamagedError(problem or f"{where}: another process cannot read it")
  return found


def _restore(manager, abstract_state, step, record) -> Restored:
  where = manager.directory / str(step)
  record = dict(record)
  arrays = record.pop(_ARRAYS, None)
  record.pop(_FORMAT, None)
  _check_shapes(f"{where}", abstract_state, arrays)
  args = ocp.args.PyTreeRestore(
    abstract_state,
    restore_args=ocp.checkpoint_utils.construct_restore_args(abstract_state),
  )
  # By the handler: the manager waits for all processes once it has read.
  state = _on_all(
    f"{where}", lambda: _state_handler().restore(where / "state", args=args)
  )
  if arrays is not None:
    wanted = {path: digest for path, (*_, digest) in arrays.items()}
    changed = digests.differing(digests.of(state), wanted)
    if changed:
      more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
      raise DamagedError(
        f"{where}: {changed[0]}{more} is not what was saved: its digest differs"
      )
  return Restored(step, state, record)


def _check_shapes(where: str, abstract_state: PyTree, arrays) -> None:
  """Raises UserError where a state has other arrays than a checkpoint."""
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
        f" {_described(ours.get(path))} in this run: another config or release"
        " has made it"
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
  """(the last checkpoint that is whole, or None; those after it, with why not).

  Args:
    manager: from `open_manager`.
    abstract_state: as of `restore`.
    strict: raise at the first that is damaged.
    stands: (step, record) -> whether the checkpoint counts at all.

  Raises:
    DamagedError: with `strict`, or where there are some and none is whole.
    UserError: as of `restore`.
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
      f"no checkpoint is whole: {'; '.join(r for _, r in passed)}"
    )
  return None, passed


@storage_errors.hushed()
def verify(directory: str | os.PathLike, step: int) -> list[str]:
  """What is damaged of a checkpoint, in lines; [] where all is as saved.

  Needs neither the model nor the devices of the run; reads it all to this
  process's memory.

  Raises:
    UserError: a later release has written it.
  """
  where = pathlib.Path(directory).absolute() / str(step)
  try:
    arrays = read_record(directory, step).get(_ARRAYS)
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
