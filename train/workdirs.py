"""What a workdir says of the run that made it: config.json, data.json."""

import json
import os
import pathlib
from typing import Any

from train.errors import UserError

# What may differ when a run goes on: how far, how often and on which devices,
# but never what is learned.
_RESUMABLE = (
  "total_steps",
  "log_every_steps",
  "evals",
  "checkpoint",
  "mesh",
  "sharding",
)


def read_config(workdir: str) -> dict[str, Any]:
  """WORKDIR/config.json.

  Raises:
    UserError: there is none, or it is not JSON.
  """
  return _read(pathlib.Path(workdir) / "config.json")


def check(workdir: str, config: dict[str, Any]) -> None:
  """Refuses a workdir that another config made.

  Raises:
    UserError: it names the first key that differs.
  """
  path = pathlib.Path(workdir)
  if not (path / "config.json").exists():
    # What a start left behind that failed before its config was written.
    for litter in path.glob("tokenizer.*"):
      litter.unlink()
    return
  difference = _first_difference(read_config(workdir), config)
  if difference is not None:
    raise UserError(
      f"{workdir} was made by another config: config.{difference}; take"
      " another --workdir, or give the same config to go on"
    )


def write_config(workdir: str, config: dict[str, Any]) -> None:
  """WORKDIR/config.json, whole or not at all."""
  _write(pathlib.Path(workdir) / "config.json", config)


def write_facts(workdir: str, facts: dict[str, Any]) -> None:
  """WORKDIR/data.json: what the run knows of its data."""
  _write(pathlib.Path(workdir) / "data.json", facts)


def read_facts(workdir: str) -> dict[str, Any]:
  """What `write_facts` wrote.

  Raises:
    UserError: there is none, or it is not JSON.
  """
  return _read(pathlib.Path(workdir) / "data.json")


def _write(path: pathlib.Path, content: dict[str, Any]) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_suffix(".tmp")
  temporary.write_text(json.dumps(content, indent=2) + "\n")
  os.replace(temporary, path)


def _read(path: pathlib.Path) -> dict[str, Any]:
  if not path.is_file():
    raise UserError(f"{path.parent}: no {path.name}, so no run was made here")
  try:
    return json.loads(path.read_text())
  except ValueError as error:
    raise UserError(f"{path}: not JSON: {error}") from error


def _first_difference(before, after, prefix="") -> str | None:
  for key in sorted(set(before) | set(after)):
    if not prefix and key in _RESUMABLE:
      continue
    old, new = before.get(key), after.get(key)
    if isinstance(old, dict) and isinstance(new, dict):
      found = _first_difference(old, new, f"{prefix}{key}.")
      if found:
        return found
    elif old != new:
      return f"{prefix}{key} ({old!r} there, {new!r} now)"
  return None
