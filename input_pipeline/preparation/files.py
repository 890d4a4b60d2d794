"""Files of a run, local or wherever Beam reaches, written whole or not at all.

A path with a scheme, as in gs://BUCKET/DIR, is Beam's matter.
"""

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from typing import BinaryIO

_PARTIAL = ".partial"


def _remote(path: str) -> bool:
  return "://" in path


def _systems():
  from apache_beam.io.filesystems import FileSystems

  return FileSystems


@contextlib.contextmanager
def writing(path: str) -> Iterator[BinaryIO]:
  """A file to write into, that others see only when it is complete.

  Where two write the same file, the last one stays.
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
  """A file to be read from, as it is."""
  if _remote(path):
    return _systems().open(
      path, "application/octet-stream", compression_type="uncompressed"
    )
  return open(path, "rb")


def read(path: str) -> bytes:
  """The bytes of a file."""
  with opened(path) as file:
    return file.read()


def exists(path: str) -> bool:
  """Whether there is such a file."""
  return _systems().exists(path) if _remote(path) else os.path.exists(path)


def names(folder: str) -> list[str]:
  """The names of what a folder holds, sorted; none where it is not there."""
  if _remote(folder):
    found = _systems().match([f"{folder}/*"])[0].metadata_list
    return sorted(each.path.rsplit("/", 1)[-1] for each in found)
  return sorted(os.listdir(folder)) if os.path.isdir(folder) else []


def sweep(folder: str) -> None:
  """Removes what a killed process had not written to its end."""
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
  """Removes a folder and all that is in it."""
  if _remote(folder):
    _systems().delete([folder])
  else:
    shutil.rmtree(folder, ignore_errors=True)
