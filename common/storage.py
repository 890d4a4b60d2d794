"""Folders in buckets (gs://, s3:// and others), read and written by fsspec.

A path with a scheme names an object or a folder in a bucket; every other path
belongs to the operating system and is no matter of this module. Objects are
written in one piece: there is no appending and no renaming.
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
# Schemes that name no folder which a run can be kept in.
_READ_ONLY = ("http", "https")


def scheme(path: str | os.PathLike | None) -> str:
  """The scheme of a path, such as "gs"; "" for a local path."""
  found = _SCHEME.match(os.fspath(path)) if path else None
  return found[1].lower() if found else ""


def check_local(where: str, path: str | os.PathLike | None) -> None:
  """Raises UserError for a path with a scheme where only a folder will do.

  Args:
    where: what the user has set, such as "--output".
    path: its value; None passes.
  """
  if scheme(path):
    raise UserError(
      f"{where}={os.fspath(path)}: {scheme(path)}:// is not supported here;"
      " give a local path, and copy the result to the bucket afterwards"
    )


def check(where: str, url: str) -> None:
  """Raises UserError where no library can read and write this folder.

  Nothing is sent over the network.

  Args:
    where: what the user has set, such as "--workdir".
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
      f" gs:// and s3:// are served after {_INSTALL}"
    ) from None
  if not rest.strip("/") or "::" in url:
    raise UserError(f"{where}={url}: name a folder, as in {name}://BUCKET/RUN")


class MissingError(BucketError, FileNotFoundError):
  """There is no such object."""


@contextlib.contextmanager
def _one_line(url: str) -> Iterator[None]:
  """Inside, whatever a file system raises becomes a BucketError of one line."""
  try:
    yield
  except FileNotFoundError as error:
    raise MissingError(f"{url}: there is no such object or bucket") from error
  except BucketError:
    raise
  except Exception as error:  # every file system raises its own
    lines = str(error).strip().splitlines() or [""]
    kind = "" if isinstance(error, OSError) else f"{type(error).__name__}: "
    raise BucketError(f"{url}: {kind}{lines[0][:200]}") from error


def _served(url: str) -> tuple[Any, str]:
  """(fsspec's file system, the path in it)."""
  import fsspec

  return fsspec.core.url_to_fs(url)


def listing(url: str) -> dict[str, int]:
  """{name below the folder: bytes} of every object; {} where there is none.

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
      continue  # it marks an empty folder
    strange = "\\" in name or "\0" in name
    if strange or any(part in ("", ".", "..") for part in name.split("/")):
      raise BucketError(f"{url}: {name!r} cannot be the name of a file")
    names[name] = int(facts.get("size") or 0)
  return names


def read(url: str, most: int) -> bytes:
  """The content of an object of at most `most` bytes.

  Raises:
    MissingError: there is none.
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
  """Writes an object in one piece, replacing what was there.

  Raises:
    BucketError: it cannot be written.
  """
  with _one_line(url):
    system, path = _served(url)
    system.pipe_file(path, content)


def create(url: str, content: bytes) -> bool:
  """Writes an object that is not there; False where there is one.

  Google's and Amazon's storage decide this atomically. Other file systems may
  only look first: two processes can both be answered True there.

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
      # Each library has its own error for a precondition that failed.
      system.invalidate_cache()
      if system.exists(path):
        return False
      raise


def modified(url: str) -> float | None:
  """Unix time of an object by the bucket's clock; None where it keeps none.

  Raises:
    MissingError: there is no such object.
  """
  with _one_line(url):
    system, path = _served(url)
    system.invalidate_cache()
    try:
      return system.modified(path).timestamp()
    except (NotImplementedError, KeyError):
      return None


def upload(local: str | os.PathLike, url: str) -> None:
  """Copies a file that does not change meanwhile; BucketError if it fails."""
  with _one_line(url):
    system, path = _served(url)
    system.put_file(os.fspath(local), path)


def download(url: str, local: str | os.PathLike) -> None:
  """Copies an object to a file, which appears when it is complete.

  Raises:
    MissingError: there is no such object.
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
  """Removes an object, if there is one; BucketError if it cannot be."""
  with contextlib.suppress(FileNotFoundError), _one_line(url):
    system, path = _served(url)
    system.rm_file(path)
