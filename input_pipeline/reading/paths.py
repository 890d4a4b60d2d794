"""Finds files of data by a glob or a list, and fingerprints them.

What exists under the name as it is written is not a glob: "run [v2]/a.jsonl" is
that file if there is one, and "run [v2]/*.jsonl" the files in that folder.
"""

import glob
import hashlib
import os
import re
from collections import Counter
from typing import NoReturn

from input_pipeline.reading import files, path_list
from input_pipeline.reading.remote import is_remote, is_web
from input_pipeline.reading.text_options import Options

_WILDCARD = re.compile(r"[*?[]")


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
  """The sorted files that a glob matches, or the file of that name.

  ** spans folders. A link whose target is missing counts as a file, since it is
  a missing shard.
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


def literal_folder(pattern: str) -> str:
  """The folder, as it is written, below which the files of a glob are found.

  It is the longest beginning without wildcards, or a longer one that exists and
  contains files that the rest matches. Absolute, with ~ expanded.
  """
  folder, _ = _divided(os.path.expanduser(pattern))
  return os.path.abspath(folder)


def _divided(pattern: str) -> tuple[str, list[str]]:
  """(the literal folder of a local pattern, the files found)."""
  *folders, name = pattern.split(os.sep)
  fixed = 0
  while fixed < len(folders) and not _WILDCARD.search(folders[fixed]):
    fixed += 1
  if _WILDCARD.search(pattern):
    if os.path.lexists(pattern) and not os.path.isdir(pattern):
      return os.path.dirname(pattern), [pattern]
    for n in range(len(folders), fixed, -1):
      folder = os.sep.join(folders[:n])
      rest = os.sep.join([*folders[n:], name])
      if os.path.isdir(folder) and (found := _globbed(folder, rest)):
        return folder, found
  folder = os.sep.join(folders[:fixed]) or (os.sep if fixed else "")
  return folder, _globbed("", pattern)


def _globbed(folder: str, pattern: str) -> list[str]:
  whole = os.path.join(glob.escape(folder), pattern)
  return [
    path
    for path in glob.glob(whole, recursive=True)
    if os.path.isfile(path) or not os.path.exists(path)
  ]


def _matching(pattern: str, uri: str) -> list[str]:
  if is_web(pattern):
    return [pattern]
  if is_remote(pattern):
    return files.matching(pattern) or _none(uri)
  _, found = _divided(os.path.expanduser(pattern))
  return sorted(map(os.path.abspath, found)) or _none(uri)


def _none(uri: str) -> NoReturn:
  raise ValueError(f"{uri} matches no file")
