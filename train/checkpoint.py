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

from train import digests, distributed
from train.errors import UserError
from train.types import PyTree, State

# Of a record. A reader knows all that came before its own.
FORMAT = 1
_ARRAYS, _FORMAT, _SEAL = "arrays", "format", "seal"
_MAX_RECORD_BYTES = 2**26


class DamagedError(UserError):
  """A checkpoint that is not what was saved; the line says what of it."""


class Restored(NamedTuple):
  """A checkpoint read back: `record` is what `save` was given."""

  step: int
  state: State
  record: dict[str, Any]


class Settings(NamedTuple):
  """The keys of config.checkpoint.

  every_steps: 0 saves at the end alone.
  keep: the last so many stay.
  on_error: "stop" where a checkpoint cannot be written, or "continue".
  """

  every_steps: int = 0
  keep: int = 2
  on_error: str = "stop"

  def stops(self) -> bool:
    """Whether an error of a save ends the run.

    Raises:
      UserError: `on_error` is neither.
    """
    if self.on_error not in ("stop", "continue"):
      raise UserError(
        f"config.checkpoint.on_error={self.on_error!r}: is neither 'stop' nor"
        " 'continue'"
      )
    return self.on_error == "stop"


def open_manager(directory: str, keep: int = 2) -> ocp.CheckpointManager:
  """The checkpoints of one run; the last `keep` stay."""
  path = pathlib.Path(directory).absolute()
  return ocp.CheckpointManager(
    path,
    options=ocp.CheckpointManagerOptions(max_to_keep=keep, create=True),
    item_handlers={
      # Weights hardly get smaller, and compressing them takes whole cores.
      "state": ocp.PyTreeCheckpointHandler(use_compression=False),
      "data": ocp.JsonCheckpointHandler(),
    },
  )


def sweep(directory: str) -> None:
  """Removes what a killed save left unfinished.

  For the run that writes there alone: to a reader, it may be a save in flight.
  """
  for litter in pathlib.Path(directory).glob("*.orbax-checkpoint-tmp*"):
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
  with (
    _told_as_os_errors(),
    ThreadPoolExecutor(1, initializer=_give_way) as thread,
  ):
    thread.submit(manager.save, step, args=args).result()


def check(manager: ocp.CheckpointManager, wait: bool = False) -> None:
  """Raises OSError if the last save could not be written.

  One still in flight is waited for if `wait`, else left alone.
  """
  if wait or not manager.is_saving_in_progress():
    with _told_as_os_errors():
      manager.wait_until_finished()


@contextlib.contextmanager
def _told_as_os_errors():
  """Errors of Orbax's writers as OSErrors of one line."""
  try:
    yield
  except UserError:
    raise
  except Exception as error:  # tensorstore's are ValueErrors
    raise OSError(f"cannot be saved: {_first_line(error)}") from error


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
      raise DamagedError(f"{path}: is no record: too large")
    content = json.loads(path.read_bytes())
  except (OSError, ValueError, RecursionError) as error:
    reason = getattr(error, "strerror", None) or _first_line(error)
    raise DamagedError(f"{path}: {reason}") from error
  if isinstance(content, dict) and set(content) == {"position"}:
    return content  # before there were digests
  seal = content.pop(_SEAL, None) if isinstance(content, dict) else None
  if seal is None or seal != _seal(content):
    raise DamagedError(f"{path}: the record is not what was written")
  if content[_FORMAT] > FORMAT:
    raise UserError(
      f"{path}: format {content[_FORMAT]}, of a later release than this one,"
      f" which knows {FORMAT}: update Tessera"
    )
  return content


def restore(
  manager: ocp.CheckpointManager, abstract_state: PyTree, step: int
) -> Restored:
  """The checkpoint of `step`, held against its record.

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
  where = f"{manager.directory / str(step)}"
  try:
    record = read_record(manager.directory, step)
    arrays = record.pop(_ARRAYS, None)
    record.pop(_FORMAT, None)
    _check_shapes(where, abstract_state, arrays)
    state = manager.restore(
      step,
      args=ocp.args.Composite(
        state=ocp.args.PyTreeRestore(
          abstract_state,
          restore_args=ocp.checkpoint_utils.construct_restore_args(
            abstract_state
          ),
        )
      ),
    )["state"]
    problem = None
  except DamagedError as error:
    problem = str(error)
  except UserError:
    raise
  except Exception as error:  # of many kinds, by what is broken
    problem = f"{where}: cannot be read: {_first_line(error)}"
  # Digests are of whole arrays: all processes compute them, or none does.
  if not distributed.all_agree(problem is None):
    raise DamagedError(problem or f"{where}: another process cannot read it")
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
      if not stands(step, read_record(manager.directory, step)):
        continue
      return restore(manager, abstract_state, step), passed
    except DamagedError as error:
      if strict:
        raise DamagedError(f"{error} (--strict)") from error
      passed.append((step, str(error)))
  if passed:
    raise DamagedError(
      f"no checkpoint is whole: {'; '.join(r for _, r in passed)}"
    )
  return None, passed


def set_aside(manager: ocp.CheckpointManager, steps: list[int]) -> str:
  """Moves checkpoints to WORKDIR/damaged, out of the way; returns its path.

  Every process must call it.
  """
  folder = pathlib.Path(manager.directory).parent / "damaged"
  if distributed.first():
    folder.mkdir(exist_ok=True)
    for step in steps:
      target, n = folder / str(step), 1
      while target.exists():
        target, n = folder / f"{step}.{n}", n + 1
      os.replace(pathlib.Path(manager.directory) / str(step), target)
  distributed.wait_for_all("damaged checkpoints are set aside")
  manager.reload()
  return str(folder)


def _first_line(error: BaseException) -> str:
  lines = str(error).strip().splitlines() or [type(error).__name__]
  return lines[0][:300]


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
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
      shapes = reader.metadata(where / "state").item_metadata.tree
      state = reader.restore(
        where / "state",
        restore_args=jax.tree.map(
          lambda _: ocp.RestoreArgs(restore_type="np.ndarray"), shapes
        ),
      )
  except DamagedError as error:
    return [str(error)]
  except UserError:
    raise
  except Exception as error:
    return [f"{where}: cannot be read: {_first_line(error)}"]
  if arrays is None:
    return []
  wanted = {path: digest for path, (*_, digest) in arrays.items()}
  return [
    f"{where}: {path} is not what was saved: its digest differs"
    for path in digests.differing(digests.of(state), wanted)
  ]
