"""Pictures as they are in their files, beside what became of them."""

from typing import Any

import numpy as np

from input_pipeline.reading import image_size, pictures
from train.prediction import Original


def of_value(value: Any) -> Original:
  """The Original of a field: the bytes of a file, or pixels uint8 or float.

  Raises:
    ValueError: from `pixels`, if it is no picture.
  """
  if isinstance(value, bytes):
    width, height, _ = image_size.image_size(value)
    if not width:
      height, width = pictures.decode(value, 3).shape[:2]
    return Original((width, height), lambda: pictures.decode(value, 3))
  pixels = np.asarray(value)
  height, width = pixels.shape[:2]
  return Original((width, height), lambda: colours(pixels))


def colours(pixels: np.ndarray) -> np.ndarray:
  """Pixels [h, w] or [h, w, c], as uint8 [h, w, 3].

  Floats are stretched to their own range.
  """
  pixels = pixels[..., None] if pixels.ndim == 2 else pixels
  if pixels.dtype != np.uint8:
    low, high = float(pixels.min()), float(pixels.max())
    pixels = (pixels - low) / ((high - low) or 1.0) * 255
    pixels = np.rint(pixels).astype(np.uint8)
  return (
    np.repeat(pixels[..., :1], 3, -1)
    if pixels.shape[2] < 3
    else (pixels[..., :3])
  )


def of_range(image_HWC: np.ndarray) -> np.ndarray:
  """A picture in [-1, 1] as uint8."""
  clipped = np.clip(np.asarray(image_HWC, np.float64), -1, 1)
  return np.rint((clipped + 1) * 127.5).astype(np.uint8)
