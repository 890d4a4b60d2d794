"""Files of a preparation, local or in a file system of Apache Beam.

A path with a scheme, such as gs://BUCKET/DIR, is read and written by Beam.
Files appear when they are complete.
"""

import contextlib
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from typing import BinaryIO

_PARTIAL = ".partial"


def _remote(path: str) -> bool:
  return "://" in path


def _systems():
  try:
    from apache_beam.io.filesystems import FileSystems
  except ImportError:
    raise ValueError(
      "paths such as gs://BUCKET/DIR need Apache Beam, which is not installed: "
      "pip install -e '.[clean]'"
    ) from None
  return FileSystems


def matching(pattern: str) -> list[str]:
  """The sorted files that a glob of a path with a scheme matches.

  A file whose name is the glob as it is written is the only one.

  Raises:
    ValueError: Beam does not support the scheme or cannot reach the files.
  """
  try:
    if re.search(r"[*?[]", pattern) and _systems().exists(pattern):
      return [pattern]
    (found,) = _systems().match([pattern])
  except Exception as error:  # Each file system raises its own.
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    raise ValueError(f"{pattern}: {reason}") from None
  return sorted(each.path for each in found.metadata_list)


@contextlib.contextmanager
def writing(path: str) -> Iterator[BinaryIO]:
  """A file to write to, which appears when it is complete.

  If two processes write the same file, the last one wins.
  """
  if _remote(path):  # Objects appear when they are complete.
    with _systems().create(path, "application/octet-stream") as file:
      yield file
    return
  os.makedirs(os.path.dirname(path), exist_ok=True)
  passing = f"{path}.{uuid.uuid4().hex}{_PARTIAL}"
  try:
    with open(passing, "wb") as file:
      yield file
      file.flush()
      os.fsync(file.fileno())
    os.replace(passing, path)
  except BaseException:
    if os.path.exists(passing):
      os.remove(passing)
    raise


def write(path: str, *pieces: bytes) -> None:
  """Writes a file as `writing` does."""
  with writing(path) as file:
    for piece in pieces:
      file.write(piece)


def opened(path: str) -> BinaryIO:
  """A file opened for reading, without decompression."""
  if _remote(path):
    return _systems().open(
      path, "application/octet-stream", compression_type="uncompressed"
    )
  return open(path, "rb")


def read(path: str) -> bytes:
  """The content of a file."""
  with opened(path) as file:
    return file.read()


def exists(path: str) -> bool:
  """Whether the file exists."""
  return _systems().exists(path) if _remote(path) else os.path.exists(path)


def names(folder: str) -> list[str]:
  """The sorted names in a folder; none if there is no such folder."""
  if _remote(folder):
    found = matching(f"{_escaped(folder)}/*")
    return [path.rsplit("/", 1)[-1] for path in found]
  return sorted(os.listdir(folder)) if os.path.isdir(folder) else []


def _escaped(folder: str) -> str:
  """A glob that matches the name of a folder as it is written."""
  return re.sub(r"([*?[])", r"[\1]", folder)


def sweep(folder: str) -> None:
  """Removes the incomplete files of a process that was killed."""
  for name in names(folder):
    if name.endswith(_PARTIAL):
      remove(f"{folder}/{name}")


def remove(path: str) -> None:
  """Removes a file."""
  if _remote(path):
    _systems().delete([path])
  else:
    os.remove(path)


def remove_folder(folder: str) -> None:
  """Removes a folder and its content."""
  if _remote(folder):
    if matching(f"{_escaped(folder)}/**"):
      _systems().delete([f"{folder}/"])
  else:
    shutil.rmtree(folder, ignore_errors=True)
