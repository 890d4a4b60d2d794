"""Reads a small regular file completely, within a size limit."""

import os
import stat

_FLAGS = (
  os.O_RDONLY
  | getattr(os, "O_CLOEXEC", 0)
  | getattr(os, "O_BINARY", 0)
  # Opening a pipe without a writer would block.
  | getattr(os, "O_NONBLOCK", 0)
)


def descriptor(path: str | os.PathLike) -> int:
  """A file descriptor of a regular file, opened for reading.

  Raises:
    ValueError: the file cannot be opened, or is a folder, a pipe or a device.
  """
  try:
    fd = os.open(path, _FLAGS)
  except (OSError, ValueError) as error:
    raise ValueError(
      f"{os.fspath(path)}: {getattr(error, 'strerror', None) or error}"
    ) from None
  if not stat.S_ISREG(os.fstat(fd).st_mode):
    os.close(fd)
    raise ValueError(f"{os.fspath(path)}: not a regular file")
  return fd


def read(path: str | os.PathLike, most: int) -> bytes:
  """The content of a file of at most `most` bytes.

  Raises:
    ValueError: it cannot be read, or is larger: then nothing is read.
  """
  with os.fdopen(descriptor(path), "rb") as file:
    size = os.fstat(file.fileno()).st_size
    # Read one byte beyond the reported size: the file may be growing.
    content = file.read(most + 1) if size <= most else b""
  if size > most or len(content) > most:
    raise ValueError(
      f"{os.fspath(path)}: {size:,} bytes, more than the limit of {most:,}"
    )
  return content
