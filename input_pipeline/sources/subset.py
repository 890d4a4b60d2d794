"""subset:FILE.json: selected, optionally relabelled examples of a source."""

import json
from typing import Any, NamedTuple

import numpy as np

from input_pipeline.bad_records import Policy
from input_pipeline.reading import bounded
from input_pipeline.sources import Source, open_source

_KEYS = ("source", "splits", "classes")
_SPLIT_KEYS = ("split", "indices", "labels")
# Labels are int32 in a batch.
_MOST = 2**31 - 1


class Part(NamedTuple):
  """One split of a subset.

  split: the split of the source.
  indices: int [n] of examples of that split; None for all of them.
  labels: int [n] that replace the field "label", or None.
  """

  split: str
  indices: np.ndarray | None = None
  labels: np.ndarray | None = None


def subset(path: str, policy: Policy = Policy()) -> dict[str, Source]:
  """subset:FILE.json: the examples listed in a file written by `write`.

  {"source": URI, "splits": {NAME: {"split": the source's, "indices": [...],
  "labels": [...]}}, "classes": [...]}. Without `indices` a split is taken
  entirely; `labels`, one for each example, becomes the field "label". `classes`
  names the labels. A relative path in URI is relative to the working directory,
  as on the command line.

  Raises:
    ValueError: the file is malformed, or lists examples that the source lacks;
      one line that names it.
  """
  known = _parsed(path, policy)
  # A file must not refer to itself, nor start an endless chain.
  seen, below = {path}, known["source"]
  while below.startswith("subset:"):
    below = below.removeprefix("subset:")
    if below in seen:
      raise ValueError(f"{path} is a subset of itself, through {below}")
    seen.add(below)
    below = _parsed(below, policy)["source"]
  classes = known["classes"]
  given = [p.labels for p in known["parts"].values() if p.labels is not None]
  largest = max((int(each.max(initial=-1)) for each in given), default=-1)
  if classes is not None and largest >= len(classes):
    raise ValueError(
      f"{path}: label {largest}, but there are {len(classes)} classes"
    )
  found = {}
  for name, part in known["parts"].items():
    try:
      source = open_source(known["source"], part.split, policy)
    except ValueError as error:
      raise ValueError(f"{path}: {error}") from None
    count = source.num_classes
    if classes is not None:
      count, names = len(classes), tuple(classes)
    else:
      names = source.class_names
      if largest >= 0:
        count = max(largest + 1, count or 0)
    if names is not None and len(names) != count:
      names = None
    chosen = _chosen(f"{path}: split {name!r}", source, part)
    found[name] = chosen._replace(
      num_classes=count,
      class_names=names,
      fingerprint=f"{known['print']} {source.fingerprint}",
    )
  return found


def write(
  path: str,
  source: str,
  parts: dict[str, Part],
  classes: tuple[str, ...] | None = None,
) -> None:
  """Writes the file that subset:FILE.json reads."""
  splits = {}
  for name, part in parts.items():
    splits[name] = {
      key: value.tolist() if isinstance(value, np.ndarray) else value
      for key, value in part._asdict().items()
      if value is not None
    }
  content: dict[str, Any] = {"source": source, "splits": splits}
  if classes is not None:
    content["classes"] = list(classes)
  with open(path, "w", encoding="utf-8") as file:
    json.dump(content, file, ensure_ascii=False)
    file.write("\n")


def _chosen(where: str, source: Source, part: Part) -> Source:
  """Returns the examples of one part of an open source."""
  indices = part.indices
  if indices is None:
    indices = np.arange(source.length)
  elif len(indices) and indices.max() >= source.length:
    raise ValueError(
      f"{where}: index {indices.max()}, but the source's split"
      f" {part.split!r} has {source.length} examples"
    )
  labels = part.labels
  if labels is not None and len(labels) != len(indices):
    raise ValueError(
      f"{where}: {len(labels)} labels for {len(indices)} examples"
    )

  def read(places: np.ndarray) -> dict[str, np.ndarray]:
    places = np.asarray(places, np.int64)
    rows = source.read(indices[places])
    return rows if labels is None else {**rows, "label": labels[places]}

  return source._replace(
    length=len(indices),
    read=read,
    name=lambda place: source.name(int(indices[place])),
  )


def _parsed(path: str, policy: Policy) -> dict[str, Any]:
  """Returns the file's source, parts, classes, and a hash of its content."""
  import hashlib

  content = bounded.read_file(path, policy)
  try:
    known = json.loads(content)
  except RecursionError:
    raise ValueError(f"{path}: nested too deeply") from None
  except ValueError as error:
    raise ValueError(f"{path}: not JSON: {error}") from None
  _check_keys(path, known, _KEYS, ("source", "splits"))
  if not isinstance(known["source"], str):
    raise ValueError(f"{path}: source is not a URI")
  splits, classes = known["splits"], known.get("classes")
  if not isinstance(splits, dict) or not splits:
    raise ValueError(f"{path}: splits is not an object with one or more splits")
  if classes is not None and not (
    isinstance(classes, list) and all(isinstance(c, str) for c in classes)
  ):
    raise ValueError(f"{path}: classes is not a list of names")
  return {
    "source": known["source"],
    "parts": {k: _part(f"{path}: split {k!r}", v) for k, v in splits.items()},
    "classes": classes,
    "print": hashlib.sha256(content).hexdigest(),
  }


def _part(where: str, known: Any) -> Part:
  _check_keys(where, known, _SPLIT_KEYS, ("split",))
  if not isinstance(known["split"], str):
    raise ValueError(f"{where}: split is not a string")
  return Part(
    known["split"],
    _integers(where, "indices", known.get("indices"), np.int64, 2**62),
    _integers(where, "labels", known.get("labels"), np.int32, _MOST),
  )


def _check_keys(where: str, known: Any, keys: tuple, needed: tuple) -> None:
  if not isinstance(known, dict):
    raise ValueError(f"{where}: not a JSON object")
  for key in known:
    if key not in keys:
      raise ValueError(f"{where}: unknown {key!r}; valid: {', '.join(keys)}")
  for key in needed:
    if key not in known:
      raise ValueError(f"{where}: {key!r} is missing")


def _integers(where, key, values, dtype, most: int) -> np.ndarray | None:
  if values is None:
    return None
  if not isinstance(values, list):
    raise ValueError(f"{where}: {key} is not a list")
  for value in values:
    if type(value) is not int or not 0 <= value < most:
      raise ValueError(
        f"{where}: {str(value)[:40]!r} in {key} is not an integer from 0 on"
      )
  return np.array(values, dtype)
