"""Files read within limits; whatever is wrong with one is a line naming it."""

import os
from collections.abc import Iterator

from common import bounded_file
from input_pipeline.bad_records import Policy, check_size
from input_pipeline.reading import inflate

# What a compressed file that is held in memory may inflate to.
MAX_INFLATED = 2**30


def failure(path: str, error: OSError) -> ValueError:
  """What a failed call on a file is told as."""
  return ValueError(f"{path}: {error.strerror or error}")


def size_of(path: str) -> int:
  """The bytes of a regular file; of a pipe or a device there is no end."""
  fd = bounded_file.descriptor(path)
  try:
    return os.fstat(fd).st_size
  finally:
    os.close(fd)


def read_file(path: str, policy: Policy) -> bytes:
  """The bytes of a file, unless they are more than `max_record_bytes`."""
  check_size(size_of(path), path, policy)
  try:
    return bounded_file.read(path, policy.max_record_bytes)
  except OSError as error:
    raise failure(path, error) from None


def chunks(path: str) -> Iterator[bytes]:
  """A file in pieces, inflated where it is named .gz or .zst, one at a time.

  Raises:
    ValueError: it cannot be read or inflated to its end, or inflates to more
      than MAX_INFLATED.
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
  """Raises ValueError where a compressed file is too large to be held."""
  if size > MAX_INFLATED:
    raise ValueError(
      f"{path}: inflates to more than {MAX_INFLATED:,} bytes, too many to hold "
      "in memory; cut it into several files, or leave it uncompressed"
    )
