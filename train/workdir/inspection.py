"""Describes a workdir as JSON and as lines for people."""

import hashlib
import json
import os
import pathlib
import time
from collections.abc import Iterator
from typing import Any

from common.errors import UserError
from train.checkpointing import bad_batches, checkpoint
from train.workdir import bucket, metrics, run_record

# States of a checkpoint, from best to worst.
VERIFIED, READ, UNKNOWN, DAMAGED = "verified", "read", "unknown", "damaged"
_SAID = {
  READ: "readable; it has no digests",
  UNKNOWN: "from a later release",
}
_SHOWN = 4  # figures per line


def run(workdir: str) -> dict[str, Any]:
  """Reads all facts about a run.

  Returns:
    {"workdir", "config" and "data" (None if damaged), "checkpoints": [{"step",
    "position" (examples consumed), "format", "saved" (Unix seconds), "bytes",
    "state", "digests", "damage": [lines], "figures": the last value of each
    metric up to that step}], "unfinished": [names], "set_aside": [paths],
    "skipped": [{"step", "to", "batches", "reason"}], "damaged": [lines]}.

  Raises:
    UserError: there is no run in it, or its bucket cannot be read.
  """
  with bucket.reading(workdir) as local:
    found = _run(local)
    if local != workdir:  # its internal paths do not help users
      found = json.loads(json.dumps(found).replace(local, workdir.rstrip("/")))
    return found


def _run(workdir: str) -> dict[str, Any]:
  path = pathlib.Path(workdir)
  folder = path / "checkpoints"
  if not (path / "config.json").exists() and not folder.is_dir():
    raise UserError(
      f"{workdir}: no config.json, so this is not the workdir of a run"
    )
  damaged: list[str] = []
  found = {"workdir": workdir, "config": None, "data": None}
  for key, read in (
    ("config", run_record.read_config),
    ("data", run_record.read_facts),
  ):
    found[key] = _or_damaged(damaged, lambda read=read: read(workdir), None)
  rows = _or_damaged(damaged, lambda: metrics.read_metrics(workdir), [])
  saved = [_saved(folder, step, rows) for step in _steps(folder)]
  passed = _or_damaged(
    damaged, lambda: bad_batches.read(path / "skipped.jsonl"), []
  )
  damaged += [line for each in saved for line in each["damage"]]
  return {
    **found,
    "checkpoints": saved,
    "unfinished": sorted(
      p.name for p in folder.glob("*.orbax-checkpoint-tmp*")
    ),
    "set_aside": sorted(str(p) for p in path.glob("damaged/*")),
    "skipped": [skip._asdict() for skip in passed],
    "damaged": damaged,
  }


def _or_damaged(damaged: list[str], read, otherwise):
  try:
    return read()
  except UserError as error:
    damaged.append(str(error))
    return otherwise


def _steps(folder: pathlib.Path) -> list[int]:
  """Returns the steps of the finished checkpoints."""
  if not folder.is_dir():
    return []
  names = [p.name for p in folder.iterdir() if p.is_dir()]
  return sorted(int(n) for n in names if n.isascii() and n.isdigit())


def _saved(folder: pathlib.Path, step: int, rows) -> dict[str, Any]:
  """Returns the facts about one checkpoint."""
  where, state, damage = folder / str(step), VERIFIED, []
  record: dict[str, Any] = {}
  try:
    record = checkpoint.read_record(folder, step)
    damage = checkpoint.verify(folder, step)
    if "arrays" not in record:
      state = READ
  except checkpoint.DamagedError as error:
    damage = [str(error)]
  except UserError:
    state = UNKNOWN
  figures: dict[str, float] = {}
  for row in rows:
    if row["step"] <= step:
      figures.update(row)
  figures.pop("step", None)
  return {
    "step": step,
    "position": record.get("position"),
    "format": record.get("format", 0) if record else None,
    "saved": where.stat().st_mtime,
    "bytes": _size(where),
    "state": DAMAGED if damage else state,
    "digests": {
      path: digest for path, (*_, digest) in record.get("arrays", {}).items()
    },
    "damage": damage,
    "figures": figures,
  }


def _size(folder: pathlib.Path) -> int:
  return sum(
    os.lstat(os.path.join(at, name)).st_size
    for at, _, names in os.walk(folder)
    for name in names
  )


def differences(one: dict[str, Any], other: dict[str, Any]) -> dict[str, list]:
  """Returns {key: [a, b]} where two configs or data differ; None if missing."""
  found = {}
  for section in ("config", "data"):
    a, b = (dict(_flat(each[section] or {})) for each in (one, other))
    for key in sorted(a.keys() | b.keys()):
      if key not in a or key not in b or a[key] != b[key]:
        name = key if section == "config" else f"data.json {key}"
        found[name] = [a.get(key), b.get(key)]
  return found


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
  """Yields (dotted key, value) of nested dicts."""
  for key, inner in value.items():
    if isinstance(inner, dict) and inner:
      yield from _flat(inner, f"{prefix}{key}.")
    else:
      yield f"{prefix}{key}", inner


def lines(facts: dict[str, Any]) -> Iterator[str]:
  """Yields the facts from `run` and `differences` as lines of text."""
  for found in facts["runs"]:
    yield from _lines_of_run(found)
  if "differences" not in facts:
    return
  names = " | ".join(found["workdir"] for found in facts["runs"])
  yield f"differences ({names}):"
  for key, (a, b) in facts["differences"].items():
    yield f"  {key}: {_short(a)} | {_short(b)}"
  if not facts["differences"]:
    yield "  none"


def _lines_of_run(found: dict[str, Any]) -> Iterator[str]:
  config = found["config"] or {}
  parts = [config.get(key) for key in ("task", "model", "optimizer")]
  named = [str(p["name"]) for p in parts if isinstance(p, dict) and "name" in p]
  yield f"{found['workdir']}: {', '.join(named) or 'its config is damaged'}"
  rows = [
    (
      "step",
      "examples",
      "saved",
      "size",
      "format",
      "state",
      "digest",
      "figures",
    )
  ]
  for each in found["checkpoints"]:
    position, version = each["position"], each["format"]
    rows.append(
      (
        str(each["step"]),
        "?" if position is None else f"{position}",
        time.strftime("%Y-%m-%d %H:%M", time.localtime(each["saved"])),
        _megabytes(each["bytes"]),
        "?" if version is None else str(version),
        _SAID.get(each["state"], each["state"]),
        _of_all(each["digests"]),
        _figures(each["figures"]),
      )
    )
  if len(rows) == 1:
    yield "  no checkpoint has been saved yet"
  else:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
      cells = zip(row, widths, strict=True)
      yield ("  " + "  ".join(text.ljust(n) for text, n in cells)).rstrip()
  for skip in found["skipped"]:
    a, b = skip["batches"]
    yield f"  skipped: batches {a} to {b - 1}: {skip['reason']}"
  for name in found["unfinished"]:
    yield f"  unfinished: {name}, from a save in progress or killed"
  for path in found["set_aside"]:
    yield f"  set aside as damaged: {path}"
  for line in found["damaged"]:
    yield f"  damaged: {line}"


def _of_all(digests: dict[str, str]) -> str:
  """Returns eight digits that represent all digests; --json prints each."""
  text = json.dumps(digests, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:8] if digests else "-"


def _figures(figures: dict[str, float]) -> str:
  """Returns the losses and evaluation results that fit in a line."""
  last = [
    (key, value)
    for key, value in figures.items()
    if key.endswith("loss") or ("/" in key and not key.startswith("train/"))
  ]
  text = "  ".join(f"{key} {value:.4g}" for key, value in last[:_SHOWN])
  return f"{text}  …" if len(last) > _SHOWN else text


def _megabytes(size: int) -> str:
  for unit in ("B", "kB", "MB", "GB"):
    if size < 1000:
      return f"{size:.3g} {unit}"
    size /= 1000
  return f"{size:.3g} TB"


def _short(value: Any) -> str:
  text = "-" if value is None else str(value)
  return text if len(text) <= 100 else f"{text[:99]}…"
