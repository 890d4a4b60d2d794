"""Sources of text files, each a document: stdlib:, text:GLOB."""

import functools
import glob
import hashlib
import os
import sysconfig
from collections import Counter
from typing import NoReturn

import numpy as np

from input_pipeline import bounded
from input_pipeline.bad_records import Policy
from input_pipeline.preparation import files
from input_pipeline.reading import path_list
from input_pipeline.reading.remote import is_remote, is_web
from input_pipeline.source import Source

_NOT_LIBRARY = {
  "__pycache__",
  "dist-packages",
  "idle_test",
  "site-packages",
  "test",
  "tests",
}


def fingerprint(paths: list[str]) -> str:
  """A hash of the files' names, sizes and times of modification."""
  digest = hashlib.sha256()
  for path in paths:
    try:
      stat = os.stat(path)
      found = f"{stat.st_size}\0{stat.st_mtime_ns}"
    except OSError:
      found = "gone"  # Reading it tells, where it is read.
    digest.update(f"{path}\0{found}\n".encode(errors="surrogateescape"))
  return digest.hexdigest()


def find_files(pattern: str, uri: str, remote: bool = False) -> list[str]:
  """The sorted files that a glob matches; ** spans folders.

  A link to a file that is gone counts: it is a shard that is missing. Lists of
  files are opened (see reading.path_list), and what they name keeps its order.

  Args:
    pattern: the glob.
    uri: what to call it in an error.
    remote: whether a list may name files behind an address.

  Raises:
    ValueError: no file matches, or a list is malformed.
  """
  listed = path_list.split(pattern)
  lists, base = listed or (pattern, "")
  if not remote and (is_remote(base) or is_remote(lists)):
    raise ValueError(f"{uri}: files are read at random from a folder alone")
  if listed is None:
    return _matching(pattern, uri)
  found = [
    p for each in _matching(lists, uri) for p in path_list.read(each, base)
  ]
  if not found:
    raise ValueError(f"{uri} lists no file")
  twice = [path for path, count in Counter(found).items() if count > 1]
  if twice:
    raise ValueError(f"{uri} lists {twice[0]} twice")
  return found


def _matching(pattern: str, uri: str) -> list[str]:
  if is_web(pattern):
    return [pattern]
  if is_remote(pattern):
    return files.matching(pattern) or _none(uri)
  paths = glob.glob(os.path.expanduser(pattern), recursive=True)
  paths = sorted(
    os.path.abspath(path)
    for path in paths
    if os.path.isfile(path) or not os.path.exists(path)
  )
  return paths or _none(uri)


def _none(uri: str) -> NoReturn:
  raise ValueError(f"{uri} matches no file")


def strings(values: list) -> np.ndarray:
  """An array of objects, whatever they are."""
  array = np.empty(len(values), object)
  array[:] = values
  return array


def decode(path: str, content: bytes) -> str:
  """The text of a file; ValueError where it is not UTF-8."""
  try:
    return content.decode("utf-8")
  except UnicodeDecodeError as error:
    raise ValueError(f"{path}: not UTF-8 at byte {error.start}") from None


def _read_text(path: str, policy: Policy) -> str:
  return decode(path, bounded.read_file(path, policy))


def _documents(paths: list[str], policy: Policy) -> dict[str, Source]:
  """One document per file, its text unchanged to the byte."""

  def read(indices: np.ndarray) -> dict[str, np.ndarray]:
    return {"text": strings([_read_text(paths[i], policy) for i in indices])}

  return {
    "all": Source(
      length=len(paths),
      read=read,
      name=lambda index: paths[index],
      fingerprint=fingerprint(paths),
    )
  }


def text(pattern: str, policy: Policy = Policy()) -> dict[str, Source]:
  """text:GLOB, each matching file a document; empty ones are told of."""
  paths = find_files(pattern, f"text:{pattern}")
  natives = _documents(paths, policy)
  empty = [p for p in paths if os.path.isfile(p) and not os.path.getsize(p)]
  if not empty:
    return natives
  note = f"{len(empty):,} of {len(paths):,} files are empty: {empty[0]}"
  note += ", …" if len(empty) > 1 else ""
  return {"all": natives["all"]._replace(note=f"text:{pattern}: {note}")}


def stdlib(rest: str, policy: Policy = Policy()) -> dict[str, Source]:
  """stdlib:, the source of Python's own library, tests left out.

  About 10 MB of text that every machine has. A file that cannot be read as
  UTF-8 is left out.
  """
  if rest:
    raise ValueError(f"stdlib:{rest}: stdlib: takes no arguments")
  return _documents(stdlib_files(), policy)


def stdlib_files() -> list[str]:
  """The sorted files of stdlib:."""
  paths = []
  for folder, folders, found in os.walk(sysconfig.get_paths()["stdlib"]):
    folders[:] = [f for f in folders if f not in _NOT_LIBRARY]
    for file in found:
      path = os.path.join(folder, file)
      if file.endswith(".py") and os.path.isfile(path) and _is_utf8(path):
        paths.append(path)
  if not paths:
    raise ValueError("stdlib: holds no source file that can be read")
  return sorted(paths)


@functools.cache
def _is_utf8(path: str) -> bool:
  try:
    _read_text(path, Policy())
  except ValueError:
    return False
  return True
