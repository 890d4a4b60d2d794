"""The record of a run in its workdir: config.json and data.json."""

import fnmatch
import json
import math
import os
import pathlib
import stat
from collections.abc import Callable
from typing import Any

import numpy as np

from common import bounded_file, storage
from common.errors import UserError
from train import workdir as layout
from train.hosts import distributed

# Keys that may differ when a run is resumed. They affect its length, how often
# it logs and saves, its devices and how it handles bad records, but never what
# it learns.
_RESUMABLE = (
  "total_steps",
  "log_every_steps",
  "log_examples",
  "evals",
  "checkpoint",
  "early_stopping",
  "recovery",
  "planned",
  "mesh",
  "sharding",
  "writers",
  "data.on_bad_record",
  "data.max_bad_share",
)
# Limits of a config.
_MOST_BYTES, _MOST_LEVELS = 2**24, 64
_FOLDERS = ("checkpoints", "damaged", "frozen", "hugging_face", "profile")
_FOLDERS += ("samples",)
# Folders whose entries may be no links.
_OWN_FILES = ("frozen", "hugging_face", "samples")
_FILES = ("columns.json", "config.json", "curves.png", "data.json")
_FILES += ("evaluated.json", "goodput.jsonl")
_FILES += ("examples.jsonl", "metrics.jsonl", "skipped.jsonl")
_FILES += ("mlflow_run_id", "wandb_run_id")
_FILES += ("labels.json", "tokenizer.json", "tokenizer.model", "triples.json")
# What a start writes before the config, and what it writes before it trains.
_PREPARED = ("tokenizer.*", "columns.json", "labels.json", "triples.json")
_BEGUN = (*_PREPARED, "config.json", "data.json", "evaluated.json")
_BEGUN += ("goodput.jsonl", "skipped.jsonl", "*_run_id")
# Files of a Hugging Face folder, none of which a run writes to its workdir.
_FOREIGN = ("tokenizer_config.json", "*.safetensors", "pytorch_model*.bin")
# More characters of class names than this are not kept.
_MOST_NAMES = 2**20
# Limit of the batch size, since each process lists the indices of a batch.
_MOST_ROWS = 2**26
# NumPy's dtype kinds of the numbers in an example, which have at most 32 bits.
_NUMBERS = "biuf"


def read_config(workdir: str) -> dict[str, Any]:
  """Reads WORKDIR/config.json.

  Raises:
    UserError: there is none, or it is damaged.
  """
  return _read(pathlib.Path(workdir) / "config.json")


def check_links(workdir: str) -> None:
  """Refuses a workdir with symbolic links to other places.

  The creator of a workdir must not be able to redirect reads and writes to
  other files. The folder itself and its checkpoints may be links, such as to a
  larger disk.

  Raises:
    UserError: an entry is a symbolic link, a folder instead of a file, or a
      file instead of a folder.
  """
  path = pathlib.Path(workdir)
  for folder in (path, *(path / name for name in _OWN_FILES)):
    try:
      with os.scandir(folder) as found:
        entries = list(found)
    except (FileNotFoundError, NotADirectoryError):
      continue
    except OSError as error:
      raise UserError(f"{folder}: {error.strerror}") from error
    for entry in entries:
      if entry.name == "checkpoints":
        continue
      if entry.is_symlink():
        raise UserError(
          f"{entry.path} is a symbolic link: replace it with its target"
        )
      name = entry.name
      if name in _FILES and not entry.is_file():
        raise UserError(f"{entry.path} is not a file")
      if name in _FOLDERS and not entry.is_dir():
        raise UserError(f"{entry.path} is not a folder")


def check(
  workdir: str,
  config: dict[str, Any],
  defaults: dict[str, Any],
  say: Callable[[str], None] = print,
) -> None:
  """Refuses a workdir that was created by another config.

  Until a run has a checkpoint or a row in metrics.jsonl, another config
  replaces the first one. The caller must hold the lock of the workdir, since
  files left by a failed start are removed. Every process must call it; process
  0 does the work.

  Args:
    workdir: the workdir of the run, a local folder.
    config: the complete config.
    defaults: the values of keys that may be missing in an older run's config.
    say: (line) -> None; prints a note.

  Raises:
    UserError: a key, which the message names, differs; the folder has a
      model of Hugging Face; or the path has a scheme such as gs://.
  """
  storage.check_local("workdir", workdir)
  if distributed.first():
    _check(workdir, config, defaults, say)
  distributed.wait_for_all("the workdir is checked")


def _check(workdir, config, defaults, say) -> None:
  check_links(workdir)
  path = pathlib.Path(workdir)
  if not (path / "config.json").exists():
    if any((path / "checkpoints").glob("[0-9]*")):
      raise UserError(
        f"{workdir} has checkpoints, but its config.json is missing: restore it"
        " from a copy, or choose another --workdir"
      )
    _check_foreign(path)
    # A previous start failed before it wrote its config.
    _remove(path, _PREPARED)
    if count := len(_others(path)):
      others = (
        "other file or folder" if count == 1 else "other files or folders"
      )
      say(f"{workdir} is not empty: the run begins beside {count} {others}")
    return
  found = read_config(workdir)
  if "data" not in found:
    raise UserError(
      f"{path / 'config.json'} is not Tessera's: it describes no run; choose"
      " another --workdir"
    )
  before = {**defaults, **found}
  difference = _first_difference(before, config)
  if difference is None:
    if note := _of_length(before, config, path / "checkpoints"):
      say(note)
    return
  if _has_trained(path):
    raise UserError(
      f"{workdir} was created by another config: config.{difference}; choose"
      " another --workdir, or resume with the same config"
    )
  _remove(path, _BEGUN)
  say(f"{workdir}: an earlier start trained nothing; its config is replaced")


def _check_foreign(path: pathlib.Path) -> None:
  """Refuses a model of Hugging Face whose tokenizer a start would remove."""
  theirs = [found for pattern in _FOREIGN for found in path.glob(pattern)]
  if theirs and any(path.glob("tokenizer.*")):
    raise UserError(
      f"{path} holds a model that is not Tessera's ({theirs[0].name}); choose"
      " another --workdir"
    )


def _others(path: pathlib.Path) -> list[str]:
  """The names in a workdir that are not those of a run."""
  ours = [*layout.FILES, *_FILES, *_FOLDERS, "*.tmp", ".*"]
  names = os.listdir(path) if path.is_dir() else []
  return [n for n in names if not any(fnmatch.fnmatch(n, o) for o in ours)]


def _has_trained(path: pathlib.Path) -> bool:
  """Whether a workdir holds more than what a failed start leaves behind."""
  metrics = path / "metrics.jsonl"
  folders = (path / "checkpoints", path / "damaged", path / "hugging_face")
  return (
    not (path / "data.json").exists()
    or (metrics.exists() and metrics.stat().st_size > 0)
    or any(folder.is_dir() and any(folder.iterdir()) for folder in folders)
  )


def _of_length(before, config, checkpoints: pathlib.Path) -> str | None:
  """What to print about the total_steps of a run that is resumed."""
  steps = [int(p.name) for p in checkpoints.glob("*") if p.name.isdecimal()]
  old, new = before.get("total_steps"), config.get("total_steps")
  if not steps or not isinstance(new, int):
    return None
  change = f"{old} → {new}" if old != new else str(new)
  last = max(steps)
  if new < last or new == last != old:
    return (
      f"total_steps: {change}; step {last} is saved already, so nothing is left"
      " to do"
    )
  if old == new:
    return None
  return (
    f"total_steps: {change}; a schedule that depends on it changes from step"
    f" {last} on"
  )


def _remove(path: pathlib.Path, patterns) -> None:
  for pattern in patterns:
    for litter in path.glob(pattern):
      litter.unlink()


def begin(workdir: str, config: dict[str, Any], data) -> None:
  """Writes config.json and data.json, each atomically.

  Args:
    workdir: the workdir of the run, a local folder.
    config: the complete config.
    data: the pipeline.Data; data.json records the facts that a model needs when
      the data is not available.

  Raises:
    UserError: the files cannot be written, or some process does not see the
      files written by process 0.
  """
  path = pathlib.Path(workdir)
  if distributed.first():
    shapes = {k: [list(x.shape), str(x.dtype)] for k, x in data.spec.items()}
    facts = {
      "spec": shapes,
      "num_examples": data.num_examples,
      "num_classes": data.num_classes,
      "batch_size": data.batch_size,
    }
    names = list(data.class_names or ())
    short = sum(map(len, names)) < _MOST_NAMES
    if names and len(names) == data.num_classes and short:
      facts["class_names"] = names
    if data.sizes:
      facts["sizes"] = dict(data.sizes)
    _write(path / "config.json", config)
    _write(path / "data.json", facts)
  distributed.wait_for_all("the workdir is written")
  if not (path / "data.json").exists():
    raise UserError(f"{workdir} is not a folder that all processes share")


def read_facts(workdir: str) -> dict[str, Any]:
  """Reads WORKDIR/data.json.

  Raises:
    UserError: there is none, or it is damaged.
  """
  path = pathlib.Path(workdir) / "data.json"
  facts = _read(path)
  try:
    classes, spec = facts["num_classes"], facts["spec"]
    counts = [facts["num_examples"], facts["batch_size"]]
    sizes = [d for shape, _ in spec.values() for d in shape]
    types = [np.dtype(name) for _, name in spec.values()]
    right = all(type(n) is int for n in [*counts, *sizes, classes or 1])
    right &= all(type(shape) is list for shape, _ in spec.values())
    right &= all(type(name) is str for _, name in spec.values())
    right &= counts[0] >= 0 and 0 < counts[1] < _MOST_ROWS
    right &= min(sizes, default=0) >= 0
    more = facts.get("sizes", {}).values()
    right &= all(type(n) is int and 0 < n < 2**31 for n in more)
    right &= classes is None or 0 < classes < 2**31
    names = facts.get("class_names", [])
    right &= type(names) is list and all(type(name) is str for name in names)
    right &= not names or len(names) == classes
    # Larger examples than any memory are impossible.
    whole = [math.prod(shape) * counts[1] for shape, _ in spec.values()]
    right &= max(whole, default=0) < 2**40 and all(
      t.kind in _NUMBERS and t.itemsize <= 4 for t in types
    )
  except (LookupError, TypeError, ValueError, AttributeError, SyntaxError) as e:
    what = f"{type(e).__name__}: {e}"
    raise UserError(f"{path}: damaged: {what[:200]}") from e
  if not right:
    raise UserError(f"{path}: damaged: impossible shapes or sizes")
  return facts


def _write(path: pathlib.Path, content: dict[str, Any]) -> None:
  temporary = path.with_suffix(".tmp")
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary.unlink(missing_ok=True)
    with open(temporary, "x") as file:  # does not follow links
      file.write(json.dumps(content, indent=2) + "\n")
    os.replace(temporary, path)
  except OSError as error:
    raise UserError(f"{path} cannot be written: {error.strerror}") from error


def _read(path: pathlib.Path) -> dict[str, Any]:
  try:
    there = stat.S_ISREG(os.stat(path).st_mode)
  except (OSError, ValueError):
    there = False
  if not there:
    raise UserError(
      f"{path.parent}: no {path.name}, so this is not the workdir of a run"
    )
  try:
    found = json.loads(bounded_file.read(path, _MOST_BYTES))
  except RecursionError:
    raise UserError(f"{path}: nested too deep") from None
  except UnicodeDecodeError as error:
    raise UserError(f"{path}: not UTF-8 at byte {error.start}") from error
  except json.JSONDecodeError as error:
    raise UserError(f"{path}: not JSON: {error}") from error
  except ValueError as error:
    text = str(error)
    at = "" if text.startswith(str(path)) else f"{path}: "
    raise UserError(f"{at}{text}") from error
  if not isinstance(found, dict):
    raise UserError(f"{path}: not a JSON object")
  if _levels(found) > _MOST_LEVELS:
    raise UserError(f"{path}: nested too deep")
  return found


def _levels(value: Any) -> int:
  """Returns the depth of nested values, computed without recursion."""
  found, layer = 0, [value]
  while layer and found <= _MOST_LEVELS:
    inner = [v.values() if isinstance(v, dict) else v for v in layer]
    layer = [x for v in inner for x in v if isinstance(x, (dict, list))]
    found += 1
  return found


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
      return f"{prefix}{key} ({_short(old)} there, {_short(new)} now)"
  return None


def _short(value: Any) -> str:
  text = repr(value)
  return text if len(text) <= 80 else f"{text[:79]}…"
