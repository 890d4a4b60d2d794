"""Decodes masks: PNG images whose values are numbers of classes or objects."""

import io

import numpy as np

# The value of pixels that belong to no class, by convention.
IGNORED = 255
_PNG = b"\x89PNG\r\n\x1a\n"


def decode(data: bytes) -> np.ndarray:
  """The values of a mask's pixels, int32 [h, w].

  Of a picture with a palette these are the indices, not the colours. Values of
  8 and 16 bits stay as they are.

  Raises:
    ValueError: it is no PNG, it is broken, or it has colours.
  """
  from PIL import Image

  if data[:8] != _PNG:
    raise ValueError("a mask is a PNG image, which this is not")
  try:
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
      image.load()
      mode, values = image.mode, np.array(image)
  except Exception as error:  # each decoder raises its own
    reason = (str(error).strip().splitlines() or ["broken"])[0]
    reason = reason.split("<")[0].strip()
    raise ValueError(f"not a readable mask: {reason}") from None
  if values.ndim != 2:
    raise ValueError(
      f"a mask has one value for each pixel, a class, and this one has"
      f" {mode} colours"
    )
  return values.astype(np.int32)
