"""Arrays that training never changes, which a workdir holds only once.

They are the frozen variables (a teacher, the reference of DPO) and the
parameters that the optimizer freezes (the base under an adapter). The first
save writes them to WORKDIR/frozen/DIGEST, and every checkpoint names that
folder in its record. The name is derived from the digests of the arrays, which
are computed anew at each save: if one of them has changed after all, the
checkpoint holds the arrays itself.
"""

import hashlib
import json
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp

from common import mirror
from common.errors import UserError
from common.nested import nested
from train.checkpointing import arrays, digests, records, storage_errors
from train.hosts import distributed
from train.types import PyTree

FOLDER = records.FROZEN
# The keys of an entry of a record: the name of the folder, and what it holds.
NAME, PATHS = "digest", "paths"


def folder(checkpoints: Any) -> pathlib.Path:
  """Returns the folder beside that of the checkpoints."""
  return pathlib.Path(checkpoints).absolute().parent / FOLDER


def keep(
  manager: ocp.CheckpointManager, state: PyTree, known: Mapping[str, list]
) -> dict[str, Any]:
  """Writes the frozen arrays of a state unless the workdir has them.

  Every process must call it. It returns once the arrays are on disk.

  Args:
    manager: `frozen` holds their paths.
    state: the state that is saved.
    known: {path: [dtype, shape, digest]} of all its arrays.

  Returns:
    The entry of the record; {} if the checkpoint must hold all arrays.
  """
  paths = sorted(set(manager.frozen) & set(known))
  if not paths:
    return {}
  name = _name({path: known[path] for path in paths})
  root = folder(manager.directory)
  have = [p.name for p in root.iterdir()] if root.is_dir() else []
  # The folders of an earlier run that has no checkpoints left do not count.
  room = not have or not manager.all_steps()
  if not distributed.all_agree(name in have):
    if not distributed.all_agree(room):
      return {}
    kept = dict(digests.named(state))
    saver = ocp.Checkpointer(arrays.handler())
    tree = nested({path: kept[path] for path in paths})
    saver.save(root / name, args=ocp.args.PyTreeSave(tree), force=True)
    saver.close()
  return {NAME: name, PATHS: paths}


def _name(described: Mapping[str, list]) -> str:
  text = json.dumps(described, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def place(checkpoints: Any, record: Mapping[str, Any]) -> pathlib.Path:
  """Returns the folder that a record with frozen arrays names."""
  return folder(checkpoints) / record[FOLDER][NAME]


def paths(record: Mapping[str, Any]) -> frozenset[str]:
  """Returns the paths of the arrays that a checkpoint does not hold itself."""
  return frozenset(record.get(FOLDER, {}).get(PATHS, ()))


def read(
  checkpoints: Any,
  record: Mapping[str, Any],
  wanted: Mapping[str, Any] | None,
  *,
  frugal: bool = False,
) -> dict[str, jax.Array]:
  """Returns the `wanted` ones of the frozen arrays; see `arrays.read`.

  Raises:
    FrozenError: they are missing or cannot be read. No checkpoint of the run
      can be restored then, so this is not a DamagedError of one of them.
  """
  if not record.get(FOLDER) or wanted == {}:
    return {}
  where = place(checkpoints, record)
  try:
    mirror.fetch(where)
    if not where.is_dir():
      raise lost(where, "there is no such folder")
    return arrays.read(where, wanted, frugal=frugal)
  except (UserError, MemoryError):
    raise
  except Exception as error:  # errors of many types
    reason = storage_errors.one_line(error, "cannot be read")
    raise lost(where, reason) from error


def lost(where: pathlib.Path, reason: str) -> records.FrozenError:
  """Returns the error about frozen arrays that are missing or damaged."""
  reason = reason.removeprefix(f"{where}: ")
  return records.FrozenError(
    f"{where}: {reason}; all checkpoints of the run need these frozen arrays:"
    " restore a copy of the folder, or start in another --workdir"
  )


def sweep(checkpoints: Any, unfinished: str) -> None:
  """Deletes what a killed process left of an unfinished write."""
  for litter in folder(checkpoints).glob(f"*{unfinished}*"):
    shutil.rmtree(litter, ignore_errors=True)
