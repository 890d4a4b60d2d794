"""Reads files within size limits; errors are one line that names the file."""

import os
from collections.abc import Iterator

from common import bounded_file
from input_pipeline.bad_records import Policy, check_size
from input_pipeline.reading import inflate

# Decompressed bytes of a file that is held in memory.
MAX_INFLATED = 2**30


class LostError(ValueError):
  """A file cannot be read to its end, so that the rest of it is lost."""


def failure(path: str, error: OSError) -> LostError:
  """The error to report a failed call on a file with."""
  return LostError(f"{path}: {error.strerror or error}")


def size_of(path: str) -> int:
  """The size of a regular file in bytes; ValueError for a pipe or a device."""
  fd = bounded_file.descriptor(path)
  try:
    return os.fstat(fd).st_size
  finally:
    os.close(fd)


def read_file(path: str, policy: Policy) -> bytes:
  """The content of a file; ValueError if above `max_record_bytes`."""
  check_size(size_of(path), path, policy)
  try:
    return bounded_file.read(path, policy.max_record_bytes)
  except OSError as error:
    raise failure(path, error) from None


def chunks(path: str) -> Iterator[bytes]:
  """Yields a file in pieces, decompressed if its name ends in .gz or .zst.

  Raises:
    ValueError: it cannot be read or decompressed to its end, or has more than
      MAX_INFLATED bytes after decompression.
  """
  compressed = inflate.is_compressed(path)
  total = 0
  try:
    with os.fdopen(bounded_file.descriptor(path), "rb") as file:
      for _, chunk in inflate.pieces(file, path):
        total += len(chunk)
        if compressed:
          check_inflated(path, total)
        yield chunk
  except OSError as error:
    raise failure(path, error) from None


def check_inflated(path: str, size: int) -> None:
  """Raises ValueError if a decompressed file is too large for memory."""
  if size > MAX_INFLATED:
    raise ValueError(
      f"{path}: inflates to more than {MAX_INFLATED:,} bytes, which is too "
      "much to hold in memory; split it into several files or decompress it"
    )
