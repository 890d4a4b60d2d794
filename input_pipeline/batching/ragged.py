"""Ragged fields, whose first axis differs between records, within tf.data.

A source returns a ragged field as an object array of arrays, one a record, of
equal types and, but for the first axis, equal shapes: boxes [n, 4], the samples
of a sound [T]. On the way through tf.data such a field is the bytes of each
array and its length; in the ops it is a tensor [None, ...].
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

_LENGTH = "_length/"
# What tf.io.decode_raw reads.
_TYPES = "float16 float32 float64 uint8 int8 uint16 int16 int32 int64 bool"

Rows = dict[str, np.ndarray]


class Ragged(NamedTuple):
  """The type of a ragged field, and the sizes of all axes but the first."""

  dtype: np.dtype
  tail: tuple[int, ...]

  def __str__(self) -> str:
    return f"{self.dtype} [n{''.join(f', {size}' for size in self.tail)}]"


def of_value(value: np.ndarray) -> Ragged:
  """Returns the kind of one record's array."""
  return Ragged(value.dtype, value.shape[1:])


def found(sample: Rows) -> dict[str, Ragged]:
  """Returns the ragged fields of a record, [1, ...] each.

  Raises:
    ValueError: a field has a type that a batch cannot have.
  """
  fields = {}
  for name, leaf in sample.items():
    if leaf.dtype != object or not isinstance(leaf[0], np.ndarray):
      continue
    value = leaf[0]
    if value.ndim < 1 or value.dtype.name not in _TYPES.split():
      raise ValueError(
        f"the field {name!r} is {value.dtype} of {value.ndim} axes, which no"
        " batch can hold; the op keep(…) leaves fields out"
      )
    fields[name] = of_value(value)
  return fields


def signature(fields: Mapping[str, Ragged], tf: Any) -> dict[str, Any]:
  """Returns {name: TensorSpec} of the packed fields of one record."""
  specs = {}
  for name in fields:
    specs[name] = tf.TensorSpec([], tf.string)
    specs[_LENGTH + name] = tf.TensorSpec([], tf.int64)
  return specs


def packed(rows: Rows, fields: Mapping[str, Ragged]) -> Rows:
  """Returns the rows with each ragged field as bytes and lengths."""
  rows = dict(rows)
  for name in fields:
    values = rows[name]
    content = np.empty(len(values), object)
    content[:] = [np.ascontiguousarray(value).tobytes() for value in values]
    lengths = [len(value) for value in values]
    rows[name], rows[_LENGTH + name] = content, np.array(lengths, np.int64)
  return rows


def unpacked(
  example: dict[str, Any], fields: Mapping[str, Ragged], tf: Any
) -> dict[str, Any]:
  """Returns one record with each ragged field as a tensor [None, ...]."""
  example = dict(example)
  for name, (dtype, tail) in fields.items():
    length = example.pop(_LENGTH + name)
    flat = tf.io.decode_raw(example[name], tf.as_dtype(dtype))
    example[name] = tf.ensure_shape(
      tf.reshape(flat, [length, *tail]), [None, *tail]
    )
  return example
