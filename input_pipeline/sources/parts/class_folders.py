"""Finds labelled files, in one folder per class, and their splits."""

import collections
import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from input_pipeline import order
from input_pipeline.bad_records import Policy
from input_pipeline.reading import bounded, endings
from input_pipeline.reading.paths import fingerprint
from input_pipeline.sources import Source

# The folders that are splits if nothing else lies beside them.
_SPLIT_FOLDERS = {
  "train": "train",
  "training": "train",
  "validation": "validation",
  "val": "val",
  "valid": "validation",
  "dev": "validation",
  "test": "test",
  "testing": "test",
}
# It defines the slices of a folder: never change it.
_FOLDER_KEY = np.uint64(0xF01DE7)


class _Files(NamedTuple):
  """The files of one split.

  read: (path, label) of those that are read, in their shuffled order.
  left: {ending: number} of those that are not.
  """

  read: list[tuple[str, int]]
  left: collections.Counter


def sources(
  uri: str,
  root: str,
  suffixes: tuple[str, ...],
  policy: Policy,
  reader: Callable[[list[str], np.ndarray], Callable],
) -> dict[str, Source]:
  """Returns a Source per split of a folder of class folders.

  Args:
    uri: its name in error messages.
    root: a folder of class folders, or of splits that contain them.
    suffixes: of the files, in lower case.
    policy: under "skip" a folder that cannot be read becomes one bad file.
    reader: (paths, labels int32 [n]) -> the Source's `read`.

  Raises:
    ValueError: there is no such folder or file, too many files have other
      endings, or all of them lie too deep for their folders to be classes.
  """
  root = os.path.expanduser(root)
  if not os.path.isdir(root):
    raise ValueError(f"{uri} is not a folder")
  if not policy.labels:
    return {"all": unlabeled(uri, [root], suffixes, policy, reader)}
  try:
    roots, notes = split_folders(root)
    classes = sorted({name for each in roots.values() for name in _in(each)})
  except OSError as error:
    raise bounded.failure(error.filename, error) from None
  found = {
    name: _files(each, classes, suffixes, policy)
    for name, each in roots.items()
  }
  left = sum((each.left for each in found.values()), collections.Counter())
  read = sum(len(each.read) for each in found.values())
  if not read:
    said = ", ".join(f"{n:,} {ending}" for ending, n in left.most_common(5))
    said = f" (there are: {said})" if said else ""
    scheme = uri.partition(":")[0]
    what = "images" if scheme == "folder" else scheme
    raise ValueError(
      f"{uri} has no folders of {what}{said}; valid: {' '.join(suffixes)}"
    )
  _check_depth(uri, roots, classes, found)
  notes.append(endings.unread(uri, read, left, suffixes, policy))
  used = {label for each in found.values() for _, label in each.read}
  empty = [name for i, name in enumerate(classes) if i not in used]
  if empty:
    more = ", …" if len(empty) > 5 else ""
    named = f"{', '.join(empty[:5])}{more}"
    notes.append(f"{uri}: no file is read of the class folders {named}")
  note = "; ".join(each for each in notes if each)
  return {
    name: _source(each, classes, reader)._replace(note=note)
    for name, each in found.items()
  }


def unlabeled(
  uri: str,
  roots: Sequence[str],
  suffixes: tuple[str, ...],
  policy: Policy,
  reader: Callable[[list[str], np.ndarray], Callable],
) -> Source:
  """Returns a Source of files without classes, in the order of their paths.

  Args:
    uri: its name in error messages.
    roots: folders, all files below which are taken, and files.
    suffixes: of the files, in lower case.
    policy: how files that are not read are counted.
    reader: (paths, labels int32 [n]) -> the Source's `read`.

  Raises:
    ValueError: there is no such file, or too many have other endings.
  """
  found: list[str] = []
  left: collections.Counter = collections.Counter()

  def unreadable(error: OSError) -> None:
    if not policy.skip:
      raise bounded.failure(error.filename, error) from None
    found.append(error.filename)

  def add(path: str) -> None:
    name = os.path.basename(path)
    if name.lower().endswith(suffixes) and not name.startswith("._"):
      found.append(path)
    elif ending := endings.of(path):
      left[ending] += 1

  for root in roots:
    if not os.path.isdir(root):
      add(root)
      continue
    for where, folders, files in os.walk(root, onerror=unreadable):
      folders[:] = sorted(f for f in folders if not endings.hidden(f))
      for file in sorted(files):
        add(os.path.join(where, file))
  if not found:
    raise ValueError(f"{uri} holds no file of: {' '.join(suffixes)}")
  return Source(
    len(found),
    reader(found, np.zeros(len(found), np.int32)),
    lambda index: found[index],
    fingerprint=fingerprint(found),
    note=endings.unread(uri, len(found), left, suffixes, policy),
    unread=tuple(sorted(left.items())),
  )


def _check_depth(
  uri: str,
  roots: dict[str, str],
  classes: list[str],
  found: dict[str, _Files],
) -> None:
  """Raises ValueError if the only class has all of its files in subfolders."""
  folders = {
    os.path.dirname(path) for each in found.values() for path, _ in each.read
  }
  if len(classes) != 1 or any(
    os.path.join(root, classes[0]) in folders for root in roots.values()
  ):
    return
  hint = "; move these folders up, in place of it"
  if "all" in roots:
    above = os.path.commonpath({os.path.dirname(each) for each in folders})
    inner = os.path.relpath(above, roots["all"])
    hint = f"; did you mean {uri.rstrip('/')}/{inner}?"
  raise ValueError(
    f"{uri} has the single class {classes[0]!r}, whose files all lie in folders"
    f" below it{hint}"
  )


def _source(files: _Files, classes: Sequence[str], reader) -> Source:
  paths = [path for path, _ in files.read]
  labels = np.array([label for _, label in files.read], np.int32)
  return Source(
    len(paths),
    reader(paths, labels),
    lambda index: paths[index],
    num_classes=len(classes),
    class_names=tuple(classes),
    fingerprint=fingerprint(paths),
    unread=tuple(sorted(files.left.items())),
  )


def _in(root: str) -> list[str]:
  """The names of the folders in a folder, sorted, without hidden ones."""
  with os.scandir(root) as entries:
    return sorted(
      e.name for e in entries if e.is_dir() and not endings.hidden(e.name)
    )


def split_folders(root: str) -> tuple[dict[str, str], list[str]]:
  """Returns {split: its folder}, or {"all": root}, and notes.

  The folders are splits if all of them that hold data have names of splits.
  """
  names = _in(root)
  named = [name for name in names if name.lower() in _SPLIT_FOLDERS]
  splits = {_SPLIT_FOLDERS[name.lower()]: name for name in named}
  whole = {"all": root}
  if not named:
    return whole, []
  other = next(
    (n for n in names if n not in named and _holds(os.path.join(root, n))), ""
  )
  if not other and len(splits) == len(named):
    ordered = dict.fromkeys(_SPLIT_FOLDERS.values())
    return {
      s: os.path.join(root, splits[s]) for s in ordered if s in splits
    }, []
  if len(named) == 1:
    return whole, []
  why = (
    f"{other!r} beside them is not a split"
    if other
    else "two of them have the same meaning"
  )
  return whole, [f"{root}: {', '.join(named)} are read as classes, since {why}"]


def _holds(folder: str) -> bool:
  """Whether there are files of data somewhere in a folder."""
  for _, folders, files in os.walk(folder):
    folders[:] = [name for name in folders if not endings.hidden(name)]
    if any(endings.of(file) for file in files):
      return True
  return False


def _files(
  root: str, classes: list[str], suffixes: tuple[str, ...], policy: Policy
) -> _Files:
  found: list[tuple[str, int]] = []
  left: collections.Counter = collections.Counter()

  def unreadable(error: OSError) -> None:
    if not policy.skip:
      raise bounded.failure(error.filename, error) from None
    found.append((error.filename, label))

  for label, name in enumerate(classes):
    path = os.path.join(root, name)
    if not os.path.lexists(path):
      continue  # The class is in another split only.
    for where, folders, files in os.walk(path, onerror=unreadable):
      folders.sort()
      folders[:] = [each for each in folders if not endings.hidden(each)]
      links = [f for f in folders if os.path.islink(os.path.join(where, f))]
      left.update({"links to folders": len(links)} if links else {})
      for file in sorted(files):
        if file.lower().endswith(suffixes) and not file.startswith("._"):
          found.append((os.path.join(where, file), label))
        elif ending := endings.of(file):
          left[ending] += 1
  with os.scandir(root) as entries:
    for entry in entries:
      if not entry.is_dir() and (ending := endings.of(entry.name)):
        left[f"{ending} outside of the class folders"] += 1
  if not found:
    return _Files(found, left)
  places = order.permute(np.arange(len(found)), len(found), _FOLDER_KEY)
  return _Files([found[place] for place in places], left)
