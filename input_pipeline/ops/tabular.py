"""Ops on the fields of a row of a table."""

import functools
import os

import tensorflow as tf

from input_pipeline.ops import Example, on_example
from input_pipeline.ops.parts import scaling


@on_example
def standardize(example: Example, statistics: str) -> Example:
  """Fields scaled as a training set was: float32, what is missing NaN.

  Args:
    example: with every column of the statistics, each a number or, where "?"
      or nothing stands for a missing one, a string.
    statistics: z_score.json or min_max.json of the stage of that name.

  Raises:
    ValueError: a column is not there, or not of numbers; or the file is no
      such statistics.
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
    # In float64, as the stage does; a product, because tf.data turns a
    # division by a constant into one, and eager does not.
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
    raise ValueError(f"field {name!r} is {value.dtype.name}, no number")
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
