"""Sources whose records are read one at a time, as {field: value}."""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from input_pipeline.bad_records import Policy, check_size, spread
from input_pipeline.reading import image_size
from input_pipeline.reading.columns import column, strings
from input_pipeline.sources import Source

# The number of records that are read to find the fields and their types.
_TYPED = 50

Record = Mapping[str, Any]


def source_of(
  length: int,
  one: Callable[[int], Record],
  name: Callable[[int], str],
  policy: Policy,
) -> Source:
  """Returns the source of records that `one` reads.

  The fields are those of some records. Arrays whose shapes differ between these
  are a ragged field. The value of a field that a record lacks is None: the
  record is bad if the run uses the field.

  Args:
    length: the number of records.
    one: (index) -> {field: number, str, bytes or array}; ValueError names the
      record.
    name: (index) -> the name of a record in error messages.
    policy: how bad records are handled.

  Raises:
    ValueError: none of the records can be read.
  """

  def checked(index: int) -> Record:
    record = one(index)
    for value in record.values():
      if isinstance(value, bytes):
        check_size(len(value), name(index), policy)
        if image_size.is_image(value):
          image_size.check_image(value, name(index), policy)
    return record

  some = some_of(length, checked)
  values = {
    field: [record[field] for record in some if field in record]
    for field in dict.fromkeys(field for record in some for field in record)
  }
  axes = {field: _axes(found) for field, found in values.items()}
  floats = {field for field, found in values.items() if _are_floats(found)}

  def read(indices: np.ndarray) -> dict[str, np.ndarray]:
    rows: list[Record] = [{}] * len(indices)
    for i in np.argsort(indices, kind="stable"):  # in the order of the files
      rows[i] = checked(int(indices[i]))
    found = {}
    for field, n in axes.items():
      cells = [row.get(field) for row in rows]
      found[field] = strings(cells) if n else _column(cells)
      if field in floats and found[field].dtype.kind in "iu":
        found[field] = found[field].astype(np.float64)
    return found

  ragged = {field: n for field, n in axes.items() if n > 1}
  return Source(length, read, name, ragged=ragged)


def some_of(length: int, one: Callable[[int], Any]) -> list:
  """Returns up to 50 records, spread over all; ValueError if none is sound."""
  some = []
  for place in spread(length, _TYPED):
    with contextlib.suppress(ValueError):  # It is reported when it is used.
      some.append(one(int(place)))
  return some or [one(0)]


def _axes(values: list) -> int:
  """Returns how many of the first axes of arrays differ; 0 for other values."""
  if not all(isinstance(value, np.ndarray) for value in values):
    return 0
  if len({value.ndim for value in values}) != 1:
    return 0
  sizes = zip(*[value.shape for value in values], strict=True)
  return max((i + 1 for i, s in enumerate(sizes) if len(set(s)) > 1), default=0)


def _are_floats(values: list) -> bool:
  """Returns whether all values are Python's numbers, and some are floats."""
  kinds = set(map(type, values))
  return float in kinds and kinds <= {int, float}


def _column(values: list) -> np.ndarray:
  """Returns the values as one array; of objects where they do not fit."""
  kinds = {
    (value.dtype, value.shape)
    if isinstance(value, (np.ndarray, np.generic))
    else None
    for value in values
  }
  if len(kinds) == 1 and None not in kinds:
    return np.stack(values)
  return strings(values) if len(kinds) > 1 else column(values)
