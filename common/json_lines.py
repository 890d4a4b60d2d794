"""Reads files of one JSON object per line, some of which may be damaged."""

import json
import math
import os
from collections.abc import Iterator
from typing import Any

from common import bounded_file
from common.errors import UserError

# Far longer than any row; longer lines are damaged.
_LONGEST = 2**20


def read(path: str | os.PathLike) -> Iterator[tuple[bytes, dict | None]]:
  """Yields (line, its object) in order; the object of a damaged line is None.

  A last line without a newline, which a kill may leave, is ignored. A missing
  file has no lines. Only one line is in memory at a time.

  Raises:
    UserError: the file cannot be read, or is not a regular file.
  """
  if not os.path.lexists(path):
    return
  try:
    fd = bounded_file.descriptor(path)
  except ValueError as error:
    raise UserError(str(error)) from error
  with os.fdopen(fd, "rb") as file:
    whole = True  # whether the previous part ended a line
    while line := file.readline(_LONGEST):
      ends = line.endswith(b"\n")
      if whole and ends and line.strip():
        yield line[:-1], _object(line)
      elif not whole or len(line) == _LONGEST:
        yield b"", None
      whole = ends


def _object(line: bytes) -> dict | None:
  try:
    found = json.loads(line)
  except (ValueError, RecursionError):
    return None
  return found if isinstance(found, dict) else None


def number(value: Any) -> bool:
  """Whether `value` is a number that a float can hold, or NaN."""
  if isinstance(value, bool) or not isinstance(value, (int, float)):
    return False
  try:
    return not math.isinf(float(value)) or isinstance(value, float)
  except OverflowError:
    return False


def count(value: Any) -> bool:
  """Whether `value` can be a step: a whole number from 0 to 2^63 - 1."""
  return type(value) is int and 0 <= value < 2**63
