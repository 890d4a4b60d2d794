"""Finds files in any folders, unlabelled or labelled by their names."""

import collections
import os
from collections.abc import Callable

import numpy as np

from input_pipeline import order
from input_pipeline.bad_records import Policy
from input_pipeline.reading import bounded, endings
from input_pipeline.reading.paths import fingerprint
from input_pipeline.sources import Source
from input_pipeline.sources.parts.class_folders import split_folders

LABELS = ("none", "stem")
# It defines the slices of the files: never change it.
_KEY = np.uint64(0x10053F11E5)


def sources(
  uri: str,
  root: str,
  suffixes: tuple[str, ...],
  policy: Policy,
  reader: Callable[[list[str], np.ndarray | None], Callable],
  label: str,
) -> dict[str, Source]:
  """Returns a Source per split of the files at any depth below a folder.

  Args:
    uri: its name in error messages.
    root: the folder, or that of the folders of splits.
    suffixes: of the files, in lower case.
    policy: how large a share of files of other formats may be left.
    reader: (paths, labels int32 [n] or None) -> the Source's `read`.
    label: "none", or "stem": the part of a file's name before its first "_" is
      its class.

  Raises:
    ValueError: there is no such folder or file, a folder cannot be read, or too
      many files have other endings.
  """
  if label not in LABELS:
    raise ValueError(f"{uri}: label={label}; valid: {', '.join(LABELS)}")
  root = os.path.expanduser(root)
  if not os.path.isdir(root):
    raise ValueError(f"{uri} is not a folder")
  roots, notes = split_folders(root)
  left: collections.Counter = collections.Counter()
  found = {name: _paths(each, suffixes, left) for name, each in roots.items()}
  read = sum(map(len, found.values()))
  if not read:
    raise ValueError(f"{uri} has no such files; valid: {' '.join(suffixes)}")
  notes.append(endings.unread(uri, read, left, suffixes, policy))
  classes: list[str] = []
  if label == "stem":
    classes = sorted({_stem(p) for paths in found.values() for p in paths})
  number = {name: i for i, name in enumerate(classes)}

  def source(paths: list[str]) -> Source:
    places = order.permute(np.arange(len(paths)), max(len(paths), 1), _KEY)
    paths = [paths[place] for place in places]
    labels = np.array([number[_stem(p)] for p in paths if classes], np.int32)
    return Source(
      len(paths),
      reader(paths, labels if classes else None),
      lambda index: paths[index],
      num_classes=len(classes) or None,
      class_names=tuple(classes) or None,
      fingerprint=fingerprint(paths),
      note="; ".join(each for each in notes if each),
      unread=tuple(sorted(left.items())),
    )

  return {name: source(paths) for name, paths in found.items()}


def _stem(path: str) -> str:
  name = os.path.splitext(os.path.basename(path))[0]
  return name.partition("_")[0]


def _paths(root: str, suffixes: tuple[str, ...], left: dict) -> list[str]:
  """Returns the files below a folder, sorted; counts the others in `left`."""

  def unreadable(error: OSError) -> None:
    raise bounded.failure(error.filename, error) from None

  found = []
  for where, folders, files in os.walk(root, onerror=unreadable):
    folders[:] = sorted(f for f in folders if not endings.hidden(f))
    for file in sorted(files):
      if file.lower().endswith(suffixes) and not file.startswith("._"):
        found.append(os.path.join(where, file))
      elif ending := endings.of(file):
        left[ending] += 1
  return found
