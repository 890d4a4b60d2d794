"""Short texts as bytes, in fields of a fixed length."""

import numpy as np

# The axes of such a field.
AXES = ("token",)


def encoded(text: str, length: int) -> np.ndarray:
  """The bytes of a text in UTF-8, int32 [length], whose end is filled with 0.

  Raises:
    ValueError: the text has more than `length` bytes.
  """
  content = text.encode()
  if len(content) > length:
    raise ValueError(f"{text!r} has {len(content)} bytes, more than {length}")
  found = np.zeros(length, np.int32)
  found[: len(content)] = list(content)
  return found
