"""Files read within limits; whatever is wrong with one is a line naming it."""

import gzip
import os
import stat
import zlib
from collections.abc import Iterator

from input_pipeline.bad_records import Policy, check_size

# What a compressed file that is held in memory may inflate to.
MAX_INFLATED = 2**30
_CHUNK = 2**20


def failure(path: str, error: OSError) -> ValueError:
  """What a failed call on a file is told as."""
  return ValueError(f"{path}: {error.strerror or error}")


def size_of(path: str) -> int:
  """The bytes of a regular file; of a pipe or a device there is no end."""
  try:
    found = os.stat(path)
  except OSError as error:
    raise failure(path, error) from None
  if not stat.S_ISREG(found.st_mode):
    raise ValueError(f"{path}: not a regular file")
  return found.st_size


def read_file(path: str, policy: Policy) -> bytes:
  """The bytes of a file, unless they are more than `max_record_bytes`."""
  size = size_of(path)
  check_size(size, path, policy)
  try:
    with open(path, "rb") as file:
      # No more than was allowed, even of a file that grows meanwhile.
      return file.read(size)
  except OSError as error:
    raise failure(path, error) from None


def chunks(path: str) -> Iterator[bytes]:
  """A file in pieces, inflated where it is named .gz, one in memory at a time.

  Raises:
    ValueError: it cannot be read or inflated to its end, or inflates to more
      than MAX_INFLATED.
  """
  compressed = path.endswith(".gz")
  total = 0
  size_of(path)
  try:
    with (gzip.open if compressed else open)(path, "rb") as file:
      while chunk := file.read(_CHUNK):
        total += len(chunk)
        if compressed:
          check_inflated(path, total)
        yield chunk
  except (gzip.BadGzipFile, EOFError, zlib.error) as error:
    raise ValueError(f"{path}: broken gzip file: {error}") from None
  except OSError as error:
    raise failure(path, error) from None


def check_inflated(path: str, size: int) -> None:
  """Raises ValueError where a compressed file is too large to be held."""
  if size > MAX_INFLATED:
    raise ValueError(
      f"{path}: inflates to more than {MAX_INFLATED:,} bytes, too many to hold "
      "in memory; cut it into several files, or leave it uncompressed"
    )
