"""Decodes images with Pillow: the formats that TensorFlow does not decode.

The first frame or page of WebP, TIFF and AVIF files, upright (see exif).
"""

import functools
import io
from typing import Any

import numpy as np

from input_pipeline.reading import exif

# What TensorFlow decodes, and what Pillow does in addition.
_TENSORFLOW = ("JPEG", "PNG", "GIF", "BMP")
_PILLOW = ("WEBP", "TIFF", "AVIF")
# Of grayscale images.
_GRAY = ("1", "L", "I", "I;16", "I;16L", "I;16B", "LA", "La")
# The bits of a pixel in the modes of Pillow that a PNG holds as they are.
_BITS = {"1": 1, "L": 8, "LA": 16, "RGB": 24, "RGBA": 32, "I;16": 16}
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


@functools.cache
def formats() -> tuple[str, ...]:
  """Pillow's names of the formats that can be decoded on this machine."""
  from PIL import features

  missing = {
    "WEBP": not features.check("webp"),
    "AVIF": not features.check("avif"),
  }
  return tuple(f for f in _TENSORFLOW + _PILLOW if not missing.get(f))


def opened(data: bytes, only: tuple[str, ...] | None = None) -> Any:
  """The image, of which only the header is read.

  Raises:
    ValueError: it is not an image of a known format.
  """
  from PIL import Image

  try:
    return Image.open(io.BytesIO(data), formats=only or formats())
  except Exception as error:  # each decoder raises its own
    raise ValueError(f"not a readable image: {_reason(error)}") from None


def size(data: bytes) -> tuple[int, int]:
  """(width, height) of a TIFF or AVIF as displayed; zeros if it is broken."""
  try:
    with opened(data, _PILLOW) as image:
      width, height = image.size
      # Pillow applies the orientation of a TIFF to its size, but not of others.
      turned = image.format != "TIFF" and image.getexif().get(0x0112, 1) > 4
      return (height, width) if turned else (width, height)
  except Exception:  # it is reported when the image is decoded
    return 0, 0


def decode(data: bytes, channels: int | None = None) -> np.ndarray:
  """The pixels, uint8 [h, w, channels], upright.

  Args:
    data: of a file in one of `formats`.
    channels: 1, 3 or 4; None for 1 if the image is gray, else 3.

  Raises:
    ValueError: it cannot be decoded.
  """
  with opened(data) as image:
    try:
      return _pixels(image, data, channels)
    except Exception as error:  # each decoder raises its own
      raise ValueError(f"not a readable image: {_reason(error)}") from None


def _pixels(image: Any, data: bytes, channels: int | None) -> np.ndarray:
  from PIL import Image, ImageOps

  image.load()
  if image.format in ("TIFF", "AVIF"):
    image = ImageOps.exif_transpose(image)
  if image.mode == "F":
    raise ValueError("its pixels are floats, which have no fixed range")
  gray = image.mode in _GRAY
  if image.mode.startswith("I"):
    # Pillow clips 16 bits to 8 bits.
    wide = np.asarray(image)
    image = Image.fromarray((wide >> 8).astype(np.uint8))
  channels = channels or (1 if gray else 3)
  pixels = np.asarray(image.convert(_MODES[channels]))
  pixels = pixels[..., None] if pixels.ndim == 2 else pixels
  return np.ascontiguousarray(exif.upright(pixels, exif.orientation(data)))


def _reason(error: Exception) -> str:
  said = str(error).split("<")[0].strip().splitlines()
  return said[0] if said else type(error).__name__


def png_of_raw(data: bytes) -> bytes:
  """Returns a PNG of a picture in the raw form of Pillow.

  Its width, its height and the length of its mode, uint32 each, and its mode
  precede the pixels.

  Raises:
    ValueError: it is cut short, or its mode is not one of a PNG.
  """
  from PIL import Image

  if len(data) < 12:
    raise ValueError("a picture that is cut short")
  width, height, size = np.frombuffer(data, "<u4", 3).tolist()
  mode, pixels = data[12 : 12 + size], data[12 + size :]
  name = mode.decode("ascii", "replace")[:20]
  bits = _BITS.get(name)
  if bits is None:
    raise ValueError(f"a picture of mode {name!r}, which is not read")
  if not width * height or len(pixels) != height * (-(-width * bits // 8)):
    raise ValueError(
      f"a picture of {width} x {height} pixels of mode {name} in"
      f" {len(pixels):,} bytes"
    )
  file = io.BytesIO()
  picture = Image.frombytes(name, (width, height), pixels)
  picture.save(file, format="PNG", compress_level=0)
  return file.getvalue()
