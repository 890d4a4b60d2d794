"""Finds files of data by a glob or a list, and fingerprints them."""

import glob
import hashlib
import os
from collections import Counter
from typing import NoReturn

from input_pipeline.reading import files, path_list
from input_pipeline.reading.remote import is_remote, is_web
from input_pipeline.reading.text_options import Options


def fingerprint(paths: list[str], options: Options = Options()) -> str:
  """A hash of the names, sizes and times of files, and of how they are read."""
  digest = hashlib.sha256()
  if options != Options():
    digest.update(f"{options}\n".encode())
  for path in paths:
    try:
      stat = os.stat(path)
      found = f"{stat.st_size}\0{stat.st_mtime_ns}"
    except OSError:
      found = "gone"  # the error is reported when it is read
    digest.update(f"{path}\0{found}\n".encode(errors="surrogateescape"))
  return digest.hexdigest()


def find_files(pattern: str, uri: str, remote: bool = False) -> list[str]:
  """The sorted files that a glob matches; ** spans folders.

  A link whose target is missing counts as a file, since it is a missing shard.
  Lists of files are read (see reading.path_list), and their order is kept.

  Args:
    pattern: the glob.
    uri: its name in errors.
    remote: whether the pattern and the lists may name remote files.

  Raises:
    ValueError: no file matches, or a list is malformed.
  """
  listed = path_list.split(pattern)
  lists, base = listed or (pattern, "")
  if not remote and (is_remote(base) or is_remote(lists)):
    raise ValueError(
      f"{uri}: training reads records at random, which needs local files; copy"
      " them to a folder or mount the bucket (input_pipeline.prepare reads"
      " remote files)"
    )
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
