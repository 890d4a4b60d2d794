"""Ops on fields whose length differs between records, such as boxes or sounds.

Such a field is a tensor [n, ...]. A batch holds arrays of one shape, so `pad`,
or an op that cuts a part of fixed size, comes before the end.
"""

import tensorflow as tf

from input_pipeline.ops import Example, on_example

LONGER = ("error", "first")


@on_example
def pad(
  example: Example,
  size: int,
  inkey: str,
  fill: float = 0,
  longer: str = "error",
) -> Example:
  """The field `inkey` padded to `size` elements, and the mask of the real ones.

  The mask, float32 [size], is the new field "INKEY_mask".

  Args:
    example: has the field.
    size: the number of elements after padding.
    inkey: the field to pad along its first axis.
    fill: the value of the padding.
    longer: what happens to a record with more elements: "error", or "first" to
      keep the first ones.

  Raises:
    ValueError: there is no such field, or an argument is invalid.
  """
  if not isinstance(size, int) or size < 1:
    raise ValueError(f"size={size!r} is not a positive integer")
  if longer not in LONGER:
    raise ValueError(f"longer={longer!r}; valid: {', '.join(LONGER)}")
  if inkey not in example:
    raise ValueError(f"no field {inkey!r}; valid: {', '.join(example)}")
  value = tf.convert_to_tensor(example[inkey])
  if value.shape.rank is None or value.shape.rank < 1:
    raise ValueError(f"the field {inkey!r} has no axis to pad")
  n = tf.shape(value)[0]
  if longer == "error":
    line = (
      f"the field {inkey!r} has more than {size} elements: a larger size, or"
      ' longer="first", takes it'
    )
    if tf.executing_eagerly():  # The error is then a line of its own.
      if n > size:
        raise ValueError(line)
    else:
      with tf.control_dependencies([tf.debugging.Assert(n <= size, [line])]):
        value = tf.identity(value)
  value = value[:size]
  room = [[0, tf.maximum(size - n, 0)], *[[0, 0]] * (value.shape.rank - 1)]
  tail = value.shape[1:]
  padded = tf.pad(value, room, constant_values=tf.cast(fill, value.dtype))
  padded = tf.ensure_shape(padded, [size, *tail])
  real = tf.cast(tf.range(size) < n, tf.float32)
  return {**example, inkey: padded, f"{inkey}_mask": real}
