"""What a workdir says of the run that made it: config.json, data.json."""

import json
import os
import pathlib
from typing import Any

from train import distributed
from train.errors import UserError

# What may differ when a run goes on: how far, how often and on which devices,
# and whether it goes on past a bad record, but never what is learned.
_RESUMABLE = (
  "total_steps",
  "log_every_steps",
  "log_examples",
  "evals",
  "checkpoint",
  "recovery",
  "mesh",
  "sharding",
  "data.on_bad_record",
  "data.max_bad_share",
)


def read_config(workdir: str) -> dict[str, Any]:
  """WORKDIR/config.json.

  Raises:
    UserError: there is none, or it is not JSON.
  """
  return _read(pathlib.Path(workdir) / "config.json")


def claim(
  workdir: str, config: dict[str, Any], defaults: dict[str, Any]
) -> None:
  """Refuses a workdir that another config made; process 0 looks, all wait.

  Args:
    workdir: where the run lives.
    config: complete.
    defaults: what a config had where it was made before there was such a key.

  Raises:
    UserError: it names the first key that differs.
  """
  if distributed.first():
    _check(workdir, config, defaults)
  distributed.wait_for_all("the workdir is claimed")


def _check(workdir, config, defaults) -> None:
  path = pathlib.Path(workdir)
  if not (path / "config.json").exists():
    # What a start left behind that failed before its config was written.
    for litter in path.glob("tokenizer.*"):
      litter.unlink()
    return
  before = {**defaults, **read_config(workdir)}
  difference = _first_difference(before, config)
  if difference is not None:
    raise UserError(
      f"{workdir} was made by another config: config.{difference}; take"
      " another --workdir, or give the same config to go on"
    )


def begin(workdir: str, config: dict[str, Any], data) -> None:
  """Writes config.json and data.json, each whole or not at all.

  Args:
    workdir: where the run lives.
    config: complete.
    data: the pipeline.Data; data.json keeps what a model must know of it when
      it is gone.

  Raises:
    UserError: what process 0 has written, another process does not see.
  """
  path = pathlib.Path(workdir)
  if distributed.first():
    shapes = {k: [list(s), str(dtype)] for k, (s, dtype) in data.spec.items()}
    facts = {
      "spec": shapes,
      "num_examples": data.num_examples,
      "num_classes": data.num_classes,
      "batch_size": data.batch_size,
    }
    _write(path / "config.json", config)
    _write(path / "data.json", facts)
  distributed.wait_for_all("the workdir is written")
  if not (path / "data.json").exists():
    raise UserError(f"{workdir} is not one folder that all processes share")


def read_facts(workdir: str) -> dict[str, Any]:
  """What `begin` wrote of the data.

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
    if f"{prefix}{key}" in _RESUMABLE:
      continue
    old, new = before.get(key), after.get(key)
    if isinstance(old, dict) and isinstance(new, dict):
      found = _first_difference(old, new, f"{prefix}{key}.")
      if found:
        return found
    elif old != new:
      return f"{prefix}{key} ({old!r} there, {new!r} now)"
  return None
