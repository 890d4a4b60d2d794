"""Folders in buckets (gs://, s3:// and others), read and written by fsspec.

A path with a scheme names an object or a folder in a bucket. All other paths
are local, and this module does not handle them. Objects are written as a whole;
they cannot be appended to or renamed.
"""

import contextlib
import os
import re
import uuid
from collections.abc import Iterator
from typing import Any

from common.errors import BucketError, UserError

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_INSTALL = "pip install -e '.[bucket]'"
# Schemes of file systems that cannot store a run.
_READ_ONLY = ("http", "https")


def scheme(path: str | os.PathLike | None) -> str:
  """Returns the scheme of a path, such as "gs"; "" for a local path."""
  found = _SCHEME.match(os.fspath(path)) if path else None
  return found[1].lower() if found else ""


def check_local(where: str, path: str | os.PathLike | None) -> None:
  """Raises UserError for a path with a scheme if it must be local.

  Args:
    where: the flag that the user has set, such as "--output".
    path: its value; None passes.
  """
  if scheme(path):
    raise UserError(
      f"{where}={os.fspath(path)}: {scheme(path)}:// is not supported here;"
      " give a local path, and copy the result to the bucket afterwards"
    )


def check(where: str, url: str) -> None:
  """Raises UserError if no library can read and write this folder.

  Nothing is sent over the network.

  Args:
    where: the flag that the user has set, such as "--workdir".
    url: its value, which has a scheme.
  """
  name = scheme(url)
  rest = url[len(name) + 3 :]
  if name in ("file", "local"):
    raise UserError(f"{where}={url}: give the path without {name}://")
  if name in _READ_ONLY:
    raise UserError(
      f"{where}={url}: {name}:// cannot be written to; use a local folder,"
      f" gs:// or s3:// ({_INSTALL})"
    )
  try:
    import fsspec
  except ImportError:
    raise UserError(
      f"{where}={url}: {name}:// needs fsspec, which is not installed:"
      f" {_INSTALL}"
    ) from None
  try:
    fsspec.get_filesystem_class(name)
  except ImportError as error:
    library = error.name or str(error).split()[-1]
    raise UserError(
      f"{where}={url}: {name}:// needs a library that is not installed"
      f" ({library}): {_INSTALL}"
    ) from None
  except ValueError:
    raise UserError(
      f"{where}={url}: no file system is known for the scheme {name}://;"
      f" gs:// and s3:// are supported after {_INSTALL}"
    ) from None
  if not rest.strip("/") or "::" in url:
    raise UserError(f"{where}={url}: name a folder, as in {name}://BUCKET/RUN")


class MissingError(BucketError, FileNotFoundError):
  """The object does not exist."""


@contextlib.contextmanager
def _one_line(url: str) -> Iterator[None]:
  """Turns all errors of a file system inside into one-line BucketErrors."""
  try:
    yield
  except FileNotFoundError as error:
    raise MissingError(f"{url}: there is no such object or bucket") from error
  except BucketError:
    raise
  except Exception as error:  # each file system raises its own errors
    lines = str(error).strip().splitlines() or [""]
    kind = "" if isinstance(error, OSError) else f"{type(error).__name__}: "
    raise BucketError(f"{url}: {kind}{lines[0][:200]}") from error


def _served(url: str) -> tuple[Any, str]:
  """Returns (the file system of fsspec, the path in it)."""
  import fsspec

  return fsspec.core.url_to_fs(url)


def listing(url: str) -> dict[str, int]:
  """Returns {name below the folder: bytes} of all objects in a folder.

  Raises:
    BucketError: the bucket cannot be listed, or an object's name would lead
      out of the folder.
  """
  with _one_line(url):
    system, root = _served(url)
    system.invalidate_cache()
    root = root.rstrip("/")
    found = system.find(root, detail=True)
  names = {}
  for path, facts in found.items():
    if not path.startswith(f"{root}/") or facts.get("type") == "directory":
      continue  # some file systems list RUN-2 with RUN
    name = path[len(root) + 1 :]
    if not name or name.endswith("/"):
      continue  # a marker of an empty folder
    strange = "\\" in name or "\0" in name
    if strange or any(part in ("", ".", "..") for part in name.split("/")):
      raise BucketError(f"{url}: {name!r} cannot be the name of a file")
    names[name] = int(facts.get("size") or 0)
  return names


def read(url: str, most: int) -> bytes:
  """Returns the content of an object of at most `most` bytes.

  Raises:
    MissingError: the object does not exist.
    BucketError: it cannot be read, or is larger.
  """
  with _one_line(url):
    system, path = _served(url)
    with system.open(path, "rb") as file:
      content = file.read(most + 1)
  if len(content) > most:
    raise BucketError(f"{url}: larger than {most:,} bytes")
  return content


def write(url: str, content: bytes) -> None:
  """Writes an object as a whole, replacing an existing one.

  Raises:
    BucketError: it cannot be written.
  """
  with _one_line(url):
    system, path = _served(url)
    system.pipe_file(path, content)


def create(url: str, content: bytes) -> bool:
  """Writes an object if it does not exist; returns whether it was written.

  This is atomic in Google's and Amazon's storage. In other file systems the
  check may precede the write, so two processes may both get True.

  Raises:
    BucketError: it cannot be written.
  """
  with _one_line(url):
    system, path = _served(url)
    system.invalidate_cache()
    try:
      system.pipe_file(path, content, mode="create")
      return True
    except FileExistsError:
      return False
    except Exception:
      # Each library has its own error for a failed precondition.
      system.invalidate_cache()
      if system.exists(path):
        return False
      raise


def modified(url: str) -> float | None:
  """Returns the Unix time of an object by the bucket's clock, if it has one.

  Raises:
    MissingError: the object does not exist.
  """
  with _one_line(url):
    system, path = _served(url)
    system.invalidate_cache()
    try:
      return system.modified(path).timestamp()
    except (NotImplementedError, KeyError):
      return None


def upload(local: str | os.PathLike, url: str) -> None:
  """Uploads a file, which must not change; BucketError if this fails."""
  with _one_line(url):
    system, path = _served(url)
    system.put_file(os.fspath(local), path)


def download(url: str, local: str | os.PathLike) -> None:
  """Copies an object to a file, which is created atomically.

  Raises:
    MissingError: the object does not exist.
    BucketError: it cannot be read, or the file cannot be written.
  """
  folder, name = os.path.split(os.fspath(local))
  os.makedirs(folder, exist_ok=True)
  temporary = os.path.join(folder, f"{name[:100]}.{uuid.uuid4().hex}.tmp")
  try:
    with _one_line(url):
      system, path = _served(url)
      system.get_file(path, temporary)
    os.replace(temporary, local)
  finally:
    with contextlib.suppress(FileNotFoundError):
      os.unlink(temporary)


def remove(url: str) -> None:
  """Removes an object if it exists; BucketError if this fails."""
  with contextlib.suppress(FileNotFoundError), _one_line(url):
    system, path = _served(url)
    system.rm_file(path)
