"""Decodes masks: PNG images whose values are numbers of classes or objects."""

import io
from collections.abc import Sequence

import numpy as np

# The value of pixels that belong to no class, by convention.
IGNORED = 255
# In each error about a mask of another size than its picture, and in no other.
DISAGREE = "and the picture"
_PNG = b"\x89PNG\r\n\x1a\n"


def sizes(mask: Sequence[int], picture: Sequence[int]) -> str:
  """What an error states of two sizes (width, height) that disagree."""
  of_mask, of_picture = (f"{each[0]} x {each[1]}" for each in (mask, picture))
  return f"{of_mask} {DISAGREE} {of_picture} pixels"


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


def objects(data: bytes, values: np.ndarray) -> list[int]:
  """The numbers of the objects in a mask that has one for each.

  0 is the background. In a PNG of 8 bits, 255 is ignored unless it is the only
  number, as in a mask of one object.

  Args:
    data: the PNG.
    values: what `decode` returns for it.
  """
  found = [n for n in np.unique(values).tolist() if n > 0]
  wide = data[24:25] == b"\x10"  # the bits of a value
  if not wide and found[-1:] == [IGNORED] and len(found) > 1:
    found.pop()
  return found


def box(inside: np.ndarray) -> tuple[int, int, int, int]:
  """(x0, y0, x1, y1) around the pixels of a mask [h, w] that has some."""
  rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
  return (
    int(columns[0]),
    int(rows[0]),
    int(columns[-1]) + 1,
    int(rows[-1]) + 1,
  )
