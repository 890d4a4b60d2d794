"""Turns the values of a field in many records into one array."""

from collections import Counter

import numpy as np


def strings(values: list) -> np.ndarray:
  """An array of Python objects."""
  array = np.empty(len(values), object)
  array[:] = values
  return array


def integers(values: list, dtype: np.dtype | type = np.int64) -> np.ndarray:
  """An array of integers; one of objects if any is missing (None)."""
  return strings(values) if None in values else np.array(values, dtype)


def ragged(values: list) -> tuple[np.dtype, tuple[int, ...]] | None:
  """Returns (dtype, sizes of all axes but the first) of lists that differ.

  They are lists of numbers, or of equal lists of numbers, of several lengths,
  but for a few that are wrong; None for other values.
  """
  if not values or not all(isinstance(value, list) for value in values):
    return None
  (_, most), *others = Counter(map(len, values)).most_common()
  # Where nearly all have one length, the others are bad records.
  if not others or 4 * most >= 3 * len(values):
    return None
  elements = [element for value in values for element in value]
  sizes = [len(each) if isinstance(each, list) else None for each in elements]
  usual = Counter(sizes).most_common(1)[0][0]
  joined = column(
    [e for e, n in zip(elements, sizes, strict=True) if n == usual]
  )
  return (joined.dtype, joined.shape[1:]) if joined.dtype != object else None


def column(values: list) -> np.ndarray:
  """A numeric array if all values are numbers, else one of objects."""
  if all(isinstance(value, (int, float, list)) for value in values):
    try:
      # As objects first, since NumPy pads strings to the longest one.
      leaves = np.array(values, object)
    except ValueError:
      return strings(values)
    if set(map(type, leaves.reshape(-1))) <= {int, float, bool}:
      array = np.array(values)
      if array.dtype.kind in "biuf":
        return array
  return strings(values)
