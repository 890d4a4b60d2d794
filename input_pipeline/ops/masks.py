"""Ops on masks: the class of each pixel of a picture."""

import numpy as np
import tensorflow as tf

from input_pipeline.ops import Example, on_example
from input_pipeline.reading import masks


@on_example
def decode_mask(
  example: Example, inkey: str = "segmentation", outkey: str | None = None
) -> Example:
  """The bytes of a PNG -> int32 [h, w], its values as they are stored.

  The indices of a palette are kept, not its colours, and so are values of 16
  bits. An array of integers [h, w] or [h, w, 1] becomes int32 [h, w]. Ops that
  move pixels treat the field "segmentation" as the classes of the pixels of
  "image".
  """
  if inkey not in example:
    raise ValueError(f"no field {inkey!r}; valid: {', '.join(example)}")
  value = tf.convert_to_tensor(example[inkey])
  if value.dtype == tf.string:
    decoded = tf.numpy_function(_decoded, [value], tf.int32, stateful=False)
    decoded.set_shape([None, None])
  elif not value.dtype.is_integer or value.shape.rank not in (2, 3):
    raise ValueError(
      f"the field {inkey!r} is neither bytes nor [h, w] integers"
    )
  else:
    decoded = tf.cast(value, tf.int32)
    if value.shape.rank == 3:
      decoded = tf.squeeze(decoded, 2)
  return {**example, outkey or inkey: decoded}


def _decoded(data: bytes | np.ndarray) -> np.ndarray:
  """A string is an array of objects in eager mode."""
  return masks.decode(data if isinstance(data, bytes) else data.item())
