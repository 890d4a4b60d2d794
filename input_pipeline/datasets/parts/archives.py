"""Members of zip and tar archives, read within limits and never unpacked.

Nothing is written here: who reads an archive decides where its files go. A
name that leaves the archive's folder, a link or a device is an error.
"""

import errno
import gzip
import pathlib
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, Any

_MOST_BYTES = 2**30  # of all members that are read
_MOST_MEMBERS = 200_000


def members(
  path: pathlib.Path,
  wanted: str,
  most_bytes: int = _MOST_BYTES,
  most_members: int = _MOST_MEMBERS,
) -> Iterator[tuple[str, bytes]]:
  """(name, content) of the members of an archive, in its order.

  Args:
    path: a .zip or .pt file, which is a zip archive; a .tar or .tar.gz file.
    wanted: a pattern that the whole name of a member matches; others are
      passed over.
    most_bytes: that the members wanted may have in all.
    most_members: that the archive may have.

  Raises:
    ValueError: the archive is damaged, exceeds a limit, or has a member that
      is a link, a device, or named outside of the archive's folder.
  """
  read = _zip if path.name.endswith((".zip", ".pt")) else _tar
  pattern = re.compile(wanted)
  count = total = 0
  try:
    for name, opened in read(path):
      count += 1
      if count > most_members:
        raise ValueError(f"{path}: more than {most_members:,} members")
      if not pattern.fullmatch(name):
        continue
      with opened() as file:
        # One byte beyond the remaining limit, as the stated size may be wrong.
        content = file.read(most_bytes - total + 1)
      total += len(content)
      if total > most_bytes:
        raise ValueError(f"{path}: inflates to more than {most_bytes:,} bytes")
      yield name, content
  except (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    gzip.BadGzipFile,
    NotImplementedError,
  ) as error:
    raise ValueError(f"{path}: damaged archive: {error}") from None
  except OSError as error:
    # What a zip's table of contents states may lie outside of the file.
    if error.errno != errno.EINVAL:
      raise
    raise ValueError(f"{path}: damaged archive: {error.strerror}") from None


def _zip(path: pathlib.Path) -> Iterator[tuple[str, Any]]:
  with zipfile.ZipFile(path) as archive:
    for info in archive.infolist():
      kind = stat.S_IFMT(info.external_attr >> 16)
      if info.flag_bits & 1:
        raise ValueError(f"{path}: {info.filename!r} is encrypted")
      if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise ValueError(f"{path}: {info.filename!r} is a link or a device")
      name = _inside(path, info.filename)
      if not info.is_dir():
        yield name, lambda info=info: archive.open(info)


def _tar(path: pathlib.Path) -> Iterator[tuple[str, Any]]:
  mode = "r:gz" if path.name.endswith(".gz") else "r:"
  with tarfile.open(path, mode) as archive:
    for member in archive:
      if not (member.isreg() or member.isdir()):
        raise ValueError(f"{path}: {member.name!r} is a link or a device")
      name = _inside(path, member.name)
      if member.isreg():
        yield name, lambda member=member: _extracted(archive, member)


def _extracted(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
  file = archive.extractfile(member)
  assert file is not None  # It is a regular file.
  return file


def _inside(path: pathlib.Path, name: str) -> str:
  """The name of a member without a leading "./"; an error if it escapes."""
  parts = [part for part in name.split("/") if part != "."]
  escapes = name.startswith("/") or ".." in parts
  if escapes or "\\" in name or "\0" in name or ":" in (parts or [""])[0]:
    raise ValueError(f"{path}: {name!r} is outside of the archive's folder")
  return "/".join(parts)
