"""Ragged fields, whose first axis differs between records, within tf.data.

A source returns a ragged field as an object array of arrays, one a record, of
equal types and, but for the first axis, equal shapes: boxes [n, 4]. A source
may declare that more of the first axes differ: sounds [samples, channels]. On
the way through tf.data such a field is the bytes of each array and its shape;
in the ops it is a tensor [None, ...].
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from input_pipeline import bad_records
from input_pipeline.reading.columns import strings

_SHAPE = "_shape/"
# What tf.io.decode_raw reads.
_TYPES = "float16 float32 float64 uint8 int8 uint16 int16 int32 int64 bool"

Rows = dict[str, np.ndarray]


class Ragged(NamedTuple):
  """The type of a ragged field, and its shape, None where records differ."""

  dtype: np.dtype
  shape: tuple[int | None, ...]


def found(sample: Rows, axes: Mapping[str, int] = {}) -> dict[str, Ragged]:
  """Returns the ragged fields of a record, [1, ...] each.

  Args:
    sample: the record.
    axes: {field: how many of its first axes differ between records}, if more
      than one does.

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
    n = axes.get(name, 1)
    fields[name] = Ragged(value.dtype, (None,) * n + value.shape[n:])
  return fields


def signature(fields: Mapping[str, Ragged], tf: Any) -> dict[str, Any]:
  """Returns {name: TensorSpec} of the packed fields of one record."""
  specs = {}
  for name, field in fields.items():
    specs[name] = tf.TensorSpec([], tf.string)
    specs[_SHAPE + name] = tf.TensorSpec([len(field.shape)], tf.int64)
  return specs


def packed(rows: Rows, fields: Mapping[str, Ragged]) -> Rows:
  """Returns the rows with each ragged field as bytes and shapes."""
  rows = dict(rows)
  for name, field in fields.items():
    values = rows[name]
    content = strings(
      [np.ascontiguousarray(value).tobytes() for value in values]
    )
    shapes = np.array([value.shape for value in values], np.int64)
    rows[name] = content
    rows[_SHAPE + name] = shapes.reshape(len(values), len(field.shape))
  return rows


def unpacked(
  example: dict[str, Any], fields: Mapping[str, Ragged], tf: Any
) -> dict[str, Any]:
  """Returns one record with each ragged field as a tensor [None, ...]."""
  example = dict(example)
  for name, (dtype, shape) in fields.items():
    whole = example.pop(_SHAPE + name)
    flat = tf.io.decode_raw(example[name], tf.as_dtype(dtype))
    example[name] = tf.ensure_shape(tf.reshape(flat, whole), shape)
  return example


def kept(examples: Any, ops: str) -> str:
  """Returns ops that let ragged fields reach a batch; without any, none do."""
  if ops:
    return ops
  sample = bad_records.typed(examples, examples.tally.policy)
  if not found(sample):
    return ops
  fields = [
    name
    for name, leaf in sample.items()
    if leaf.dtype != object or isinstance(leaf[0], np.ndarray)
  ]
  return f"keep({', '.join(map(repr, fields))})"


def padded(
  example: dict[str, Any], longest: int | None, names: set[str], tf: Any
) -> dict[str, Any]:
  """Pads the fields that are still ragged, and adds the mask of each.

  Args:
    example: tensors.
    longest: the size of their first axis; None pads none, and 0 replaces each
      field by its length.
    names: receives the names of the fields that were padded, and their masks.
    tf: TensorFlow.
  """
  if longest is None:
    return example
  example = dict(example)
  for name, value in list(example.items()):
    shape = value.shape.as_list() if value.shape.rank else [1]
    if shape[0] is not None or None in shape[1:]:
      continue
    n = tf.shape(value)[0]
    names.add(name)
    if longest == 0:
      example[name] = n
      continue
    line = f"the field {name!r} is longer than the last of buckets, {longest}"
    if tf.executing_eagerly():  # The error is then a line of its own.
      if n > longest:
        raise ValueError(line)
    else:
      check = tf.debugging.Assert(n <= longest, [line])
      with tf.control_dependencies([check]):
        value = tf.identity(value)
    value = value[:longest]
    room = [[0, tf.maximum(longest - n, 0)], *[[0, 0]] * (len(shape) - 1)]
    value = tf.ensure_shape(tf.pad(value, room), [longest, *shape[1:]])
    mask = tf.cast(tf.range(longest) < n, tf.float32)
    example |= {name: value, f"{name}_mask": mask}
    names.add(f"{name}_mask")
  return example
