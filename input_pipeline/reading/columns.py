"""Turns the values of a field in many records into one array."""

import numpy as np


def strings(values: list) -> np.ndarray:
  """An array of Python objects."""
  array = np.empty(len(values), object)
  array[:] = values
  return array


def integers(values: list, dtype: np.dtype | type = np.int64) -> np.ndarray:
  """An array of integers; one of objects if any is missing (None)."""
  return strings(values) if None in values else np.array(values, dtype)


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
