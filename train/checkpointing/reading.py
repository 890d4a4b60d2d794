"""Reads the record and the arrays of one checkpoint, and verifies them."""

import os
import pathlib
from collections.abc import Callable
from typing import Any

import jax

from common import mirror
from common.errors import UserError
from train.checkpointing import (
  arrays,
  digests,
  frozen,
  records,
  storage_errors,
)
from train.checkpointing.records import DamagedError
from train.hosts import distributed
from train.types import PyTree

# How the paths of frozen variables begin.
_FROZEN = "variables/frozen/"


def record(manager, step) -> dict[str, Any]:
  """Reads a record; all processes agree on the outcome."""
  where = f"{manager.directory / str(step)}"
  return on_all(where, lambda: records.read(manager.directory, step))


def on_all(where: str, read: Callable[[], Any]) -> Any:
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
  if problem is not None:
    storage_errors.collect()
  if not distributed.all_agree(problem is None):
    raise DamagedError(problem or f"{where}: another process cannot read it")
  return found


def read(where, record, wanted, frugal=False) -> dict[str, jax.Array]:
  """Returns the `wanted` arrays of a checkpoint; all processes call it."""
  elsewhere = frozen.paths(record)
  kept = {path: x for path, x in wanted.items() if path in elsewhere}
  own = {path: x for path, x in wanted.items() if path not in elsewhere}

  def read():
    mirror.fetch(where)
    # By the handler: the manager waits for all processes once it has read.
    found = arrays.read(where / "state", own, frugal=frugal)
    return found | frozen.read(where.parent, record, kept, frugal=frugal)

  found = on_all(f"{where}", read)
  return {path: found[path] for path in wanted}


def check_shapes(where: str, abstract_state: PyTree, known) -> None:
  """Raises UserError if a checkpoint has other arrays than the state.

  Frozen variables that the state no longer has are not missed: earlier releases
  saved copies that are not needed.
  """
  if known is None:
    return
  ours = {
    path: [str(x.dtype), list(x.shape)]
    for path, x in digests.named(abstract_state)
  }
  extra = {p for p in known.keys() - ours.keys() if p.startswith(_FROZEN)}
  for path in sorted((ours.keys() | known.keys()) - extra):
    there = known[path][:2] if path in known else None
    if ours.get(path) != there:
      raise UserError(
        f"{where}: {path} is {_described(there)} there and"
        f" {_described(ours.get(path))} in this run: it was saved by another"
        " config or release"
      )


def _described(array) -> str:
  return "missing" if array is None else f"{array[0]}{array[1]}"


def compare(where, record, found: dict[str, jax.Array]) -> None:
  """Raises an error unless the arrays have the digests of the record.

  It is a DamagedError of the checkpoint, or a FrozenError.
  """
  known = record.get(records.ARRAYS)
  if known is None:
    return
  wanted = {path: known.get(path, ("",))[-1] for path in found}
  changed = digests.differing(digests.of(found), wanted)
  if not changed:
    return
  more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
  said = f"{changed[0]}{more} is not what was saved: its digest differs"
  if changed[0] in frozen.paths(record):
    raise frozen.lost(frozen.place(where.parent, record), said)
  raise DamagedError(f"{where}: {said}")


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
    record = records.read(directory, step)
  except DamagedError as error:
    return [str(error)]
  try:
    mirror.fetch(where)
    found = arrays.read(where / "state")
    found |= frozen.read(directory, record, None)
  except UserError as error:
    return [str(error)]
  except Exception as error:
    found = None
    line = storage_errors.one_line(error, f"{where}: cannot be read")
  if found is None:
    storage_errors.collect()
    return [line]
  known = record.get(records.ARRAYS)
  if known is None:
    return []
  wanted = {path: digest for path, (*_, digest) in known.items()}
  return [
    f"{where}: {path} is not what was saved: its digest differs"
    for path in digests.differing(digests.of(found), wanted)
  ]
