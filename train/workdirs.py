"""The config that a workdir was made with."""

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
  path = pathlib.Path(workdir) / "config.json"
  if not path.is_file():
    raise UserError(f"{workdir}: no config.json, so no run was made here")
  try:
    return json.loads(path.read_text())
  except ValueError as error:
    raise UserError(f"{path}: not JSON: {error}") from error


def claim(workdir: str, config: dict[str, Any]) -> None:
  """Writes config.json, or refuses a workdir that another config made."""
  path = pathlib.Path(workdir) / "config.json"
  if path.exists():
    before = read_config(workdir)
    key = _first_difference(before, config)
    if key is not None:
      raise UserError(
        f"{workdir} was made by another config: config.{key} differs; take"
        " another --workdir, or give the same config to resume"
      )
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_suffix(".tmp")
  temporary.write_text(json.dumps(config, indent=2) + "\n")
  os.replace(temporary, path)


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
