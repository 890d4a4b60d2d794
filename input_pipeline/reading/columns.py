"""Values of a field in many records, as one array."""

import numpy as np


def strings(values: list) -> np.ndarray:
  """An array of objects, whatever they are."""
  array = np.empty(len(values), object)
  array[:] = values
  return array


def column(values: list) -> np.ndarray:
  """An array of numbers where the values are, else of objects."""
  if all(isinstance(value, (int, float, list)) for value in values):
    try:
      # As objects first: strings would all be padded to the longest.
      leaves = np.array(values, object)
    except ValueError:
      return strings(values)
    if set(map(type, leaves.reshape(-1))) <= {int, float, bool}:
      array = np.array(values)
      if array.dtype.kind in "biuf":
        return array
  return strings(values)
