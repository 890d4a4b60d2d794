"""Ops on the fields of a row of a table.

For features and a target learned from a table, see rows/columns.py.
"""

import functools
import os

import tensorflow as tf

from input_pipeline.ops import Example, on_example
from input_pipeline.ops.parts import scaling


@on_example
def standardize(example: Example, statistics: str) -> Example:
  """Fields scaled by the statistics of a training set; float32.

  A missing value is NaN, or the mean if the statistics were made so.

  Args:
    example: has every column of the statistics, each a number, or a string that
      spells one; "?" and white space are missing values.
    statistics: path of the z_score.json or min_max.json that the stage of that
      name wrote.

  Raises:
    ValueError: a column is missing or does not hold numbers, or the file does
      not hold such statistics.
  """
  known = _read(statistics, _identity(statistics))
  found = dict(example)
  for name, (offset, factor, shift, fill) in scaling.terms(known).items():
    if name not in example:
      raise ValueError(f"no field {name!r}; valid: {', '.join(example)}")
    value = _as_number(name, example[name])
    if fill is not None:
      mean = tf.constant(fill, tf.float64)
      value = tf.where(tf.math.is_nan(value), mean, value)
    # In float64, as in the stage. A product, because tf.data, unlike eager
    # mode, replaces division by a constant with one.
    scaled = (value - offset) * factor + shift
    found[name] = tf.cast(scaled, tf.float32)
  return found


def _as_number(name: str, value: tf.Tensor) -> tf.Tensor:
  value = tf.convert_to_tensor(value)
  if value.dtype == tf.string:
    text = tf.strings.strip(value)
    absent = tf.zeros_like(text, tf.bool)
    for spelled in scaling.SPELLED_MISSING:
      absent = absent | (text == spelled)
    return tf.strings.to_number(tf.where(absent, "nan", text), tf.float64)
  if not (value.dtype.is_floating or value.dtype.is_integer):
    raise ValueError(f"field {name!r} is {value.dtype.name}, not a number")
  return tf.cast(value, tf.float64)


def _identity(path: str) -> tuple[int, int]:
  """Changes when a file is replaced."""
  try:
    status = os.stat(path)
  except OSError as error:
    raise ValueError(f"{path}: {error.strerror}") from None
  return status.st_size, status.st_mtime_ns


@functools.lru_cache(maxsize=4)
def _read(path: str, identity: tuple[int, int]) -> scaling.Scaling:
  return scaling.read(path)
