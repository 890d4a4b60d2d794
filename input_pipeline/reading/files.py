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

  Raises:
    ValueError: Beam does not know the scheme, or cannot reach what it names.
  """
  try:
    (found,) = _systems().match([pattern])
  except Exception as error:  # Each file system raises its own.
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    raise ValueError(f"{pattern}: {reason}") from None
  return sorted(each.path for each in found.metadata_list)


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
    return [path.rsplit("/", 1)[-1] for path in matching(f"{folder}/*")]
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
    if matching(f"{folder}/**"):
      _systems().delete([f"{folder}/"])
  else:
    shutil.rmtree(folder, ignore_errors=True)
