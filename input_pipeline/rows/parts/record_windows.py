"""Cuts records into windows, for rows of questions and of tags."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from input_pipeline.bad_records import error_line
from input_pipeline.rows import Given
from input_pipeline.rows.parts import record_texts

_AT_ONCE = 256


def records(given: Given, indices: np.ndarray, keys: Sequence[str]):
  """Returns {key: values} of some records.

  Raises:
    ValueError: a record has no such field.
  """
  return record_texts.fields(given.source.read(indices), keys, given.title)


def cut(
  given: Given,
  keys: Sequence[str],
  windows: Callable[[str, dict[str, Any]], list[tuple[int, ...]]],
) -> np.ndarray:
  """Returns [record, *result of `windows`] of each window, int64 [n, 1 + w].

  Args:
    given: of the data; every record is read once.
    keys: the fields that are used.
    windows: (name, the record's fields) -> w numbers for each of its windows;
      ValueError for a bad record, which under "skip" has no windows.

  Raises:
    ValueError: a record is bad, or under "skip" too many are.
  """
  skip, rows = given.tally.policy.skip, []

  def of_one(index: int, fields: dict[str, Any]) -> None:
    name = given.source.name(index)
    try:
      made = windows(name, fields)
    except ValueError as error:
      raise ValueError(error_line(name, str(error))) from None
    rows.extend((index, *window) for window in made)

  start = 0
  while start < given.source.length:
    indices = np.arange(start, min(start + _AT_ONCE, given.source.length))
    start += len(indices)
    bad: list[tuple[str, str]] = []
    try:
      found = records(given, indices, keys)
    except ValueError:
      if not skip:
        raise
      found = None  # One of them is bad; reading each alone shows which.
    for i, index in enumerate(indices):
      try:
        one = found and {key: found[key][i] for key in keys}
        if one is None:
          alone = records(given, indices[i : i + 1], keys)
          one = {key: alone[key][0] for key in keys}
        of_one(int(index), one)
      except ValueError as error:
        if not skip:
          raise
        bad.append((given.source.name(int(index)), str(error)))
    given.tally.add(len(indices) if skip else 0, bad)
  if not rows:
    raise ValueError(f"{given.title}: holds no record that makes a row")
  return np.array(rows, np.int64)


def spans(size: int, room: int, stride: int) -> list[tuple[int, int]]:
  """Returns (start, end) of overlapping windows over `size` tokens.

  Each holds at most `room` tokens and begins `stride` after the one before; the
  last ends with the text, so no token is left out.
  """
  found, start = [], 0
  while True:
    end = min(start + room, size)
    found.append((start, end))
    if end == size:
      return found
    start += min(stride, room)
