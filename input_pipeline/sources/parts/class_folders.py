"""Finds labelled files, in one folder per class, and their splits."""

import os

import numpy as np

from input_pipeline import order
from input_pipeline.bad_records import Policy
from input_pipeline.reading import bounded

_SPLIT_FOLDERS = ("train", "validation", "val", "test")


# It defines the slices of a folder: never change it.
_FOLDER_KEY = np.uint64(0xF01DE7)


def class_folders(
  uri: str, root: str, suffixes: tuple[str, ...], policy: Policy
) -> tuple[list[str], dict[str, list[tuple[str, int]]]]:
  """Returns the classes' names, sorted, and each split's files (path, label).

  Args:
    uri: its name in error messages.
    root: a folder of class folders, or of splits that contain them.
    suffixes: of the files, in lower case.
    policy: under "skip" a folder that cannot be read becomes one bad file.
  """
  root = os.path.expanduser(root)
  if not os.path.isdir(root):
    raise ValueError(f"{uri} is not a folder")
  roots = {"all": root}
  if os.path.isdir(os.path.join(root, "train")):
    roots = {
      split: os.path.join(root, split)
      for split in _SPLIT_FOLDERS
      if os.path.isdir(os.path.join(root, split))
    }
  try:
    classes = sorted(
      {
        entry.name
        for each in roots.values()
        for entry in os.scandir(each)
        if entry.is_dir() and not entry.name.startswith(".")
      }
    )
  except OSError as error:
    raise bounded.failure(error.filename, error) from None
  found = {
    name: _files(each, classes, suffixes, policy)
    for name, each in roots.items()
  }
  if not any(files for files in found.values()):
    scheme = "audio" if ".wav" in suffixes else "images"
    raise ValueError(
      f"{uri} has no folders of {scheme}; valid: {' '.join(suffixes)}"
    )
  return classes, found


def _files(
  root: str, classes: list[str], suffixes: tuple[str, ...], policy: Policy
) -> list[tuple[str, int]]:
  found = []

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
      found += [
        (os.path.join(where, file), label)
        for file in sorted(files)
        if file.lower().endswith(suffixes)
      ]
  if not found:
    return found
  places = order.permute(np.arange(len(found)), len(found), _FOLDER_KEY)
  return [found[place] for place in places]
