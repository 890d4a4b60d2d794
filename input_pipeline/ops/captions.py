"""Captions of pictures, made of the names of their classes."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from input_pipeline.ops import Context, Example, on_example
from input_pipeline.ops.parts import text_bytes


@on_example
def caption(
  example: Example,
  names: Sequence[str],
  template: str = "a picture of a {}",
  length: int = 32,
  *,
  context: Context,
) -> Example:
  """Adds "caption", int32 [length]: the bytes of a text about the label.

  Args:
    example: has an integer "label".
    names: of the classes, in the order of the labels.
    template: the text, with {} in the place of the name.
    length: of the field, whose end is filled with 0.
    context: of the data.

  Raises:
    ValueError: the names are not those of all classes, there is no label, or a
      text is longer than `length` bytes.
  """
  if "label" not in example or len(example["label"].shape):
    raise ValueError("caption needs a field label that is a whole number")
  if context.num_classes not in (None, len(names)):
    raise ValueError(
      f"caption: {len(names)} names for {context.num_classes} classes"
    )
  try:
    table = np.stack(
      [text_bytes.encoded(template.format(name), length) for name in names]
    )
  except ValueError as error:
    raise ValueError(f"caption: {error}; set length") from None
  made = tf.gather(tf.constant(table), tf.cast(example["label"], tf.int32))
  return {**example, "caption": tf.ensure_shape(made, [length])}
