"""Files of one JSON object a line, as a kill or a bad disk leaves them."""

import json
import math
import os
from collections.abc import Iterator
from typing import Any

from common import bounded_file
from common.errors import UserError

# Far beyond any row: what has no newline for so long is no row.
_LONGEST = 2**20


def read(path: str | os.PathLike) -> Iterator[tuple[bytes, dict | None]]:
  """(line, its object) in order; None where a line is damaged.

  A last line without its newline, which a kill cut short, is left out. Nothing
  comes of a file that is not there. One line is in memory at a time.

  Raises:
    UserError: it cannot be read, or is no file.
  """
  if not os.path.lexists(path):
    return
  try:
    fd = bounded_file.descriptor(path)
  except ValueError as error:
    raise UserError(str(error)) from error
  with os.fdopen(fd, "rb") as file:
    whole = True  # the part before ended a line
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
  """Whether it can be a figure: a float holds it; NaN counts."""
  if isinstance(value, bool) or not isinstance(value, (int, float)):
    return False
  try:
    return not math.isinf(float(value)) or isinstance(value, float)
  except OverflowError:
    return False


def count(value: Any) -> bool:
  """Whether it can be a step."""
  return type(value) is int and 0 <= value < 2**63
