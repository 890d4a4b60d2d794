"""Draws predictions on pictures, and writes pictures as PNG."""

import io
from collections.abc import Sequence

import numpy as np

from input_pipeline.bad_records import Policy
from input_pipeline.reading import masks
from input_pipeline.reading.annotations import outlines
from input_pipeline.reporting import marks


def png(pixels: np.ndarray) -> bytes:
  """A picture as PNG.

  Args:
    pixels: uint8 [h, w, 3], [h, w, 1], or the classes of pixels [h, w]. Classes
      below 256 are written with a palette of colours, in which 255 is
      transparent, others as numbers of 16 bits.
  """
  from PIL import Image

  options = {"compress_level": 3}
  if pixels.ndim == 3:
    squeezed = pixels[..., 0] if pixels.shape[2] == 1 else pixels
    image = Image.fromarray(np.ascontiguousarray(squeezed))
  elif pixels.max(initial=0) > 255:
    image = Image.fromarray(pixels.astype(np.uint16))
  else:
    image = Image.fromarray(pixels.astype(np.uint8), "L").convert("L")
    image.putpalette(_palette())
    options["transparency"] = 255
  file = io.BytesIO()
  image.save(file, format="PNG", **options)
  return file.getvalue()


def _palette() -> list[int]:
  colours = [_colour(n) for n in range(255)]
  return [part for colour in (*colours, (0, 0, 0)) for part in colour]


def _colour(number: int) -> tuple[int, int, int]:
  red, green, blue = (round(255 * part) for part in marks.colour(number))
  return red, green, blue


def classes(image_HWC: np.ndarray, found: np.ndarray) -> np.ndarray:
  """A picture under the colours of the classes of its pixels, uint8."""
  return marks.tinted(image_HWC, marks.Marks(segmentation=found))


def objects(image_HWC: np.ndarray, found: Sequence[dict]) -> np.ndarray:
  """A picture with boxes, labels, scores and masks of objects, uint8.

  A label that would hide more than half of another object is left out.

  Args:
    image_HWC: uint8 [h, w, 3].
    found: as train/prediction/detections.py describes them.
  """
  from PIL import Image, ImageDraw, ImageFont

  image_HWC = _tinted(image_HWC, found)
  image = Image.fromarray(np.ascontiguousarray(image_HWC))
  draw = ImageDraw.Draw(image)
  size = max(image.size)
  font = ImageFont.load_default(max(10, size // 50))
  line = max(1, size // 300)
  # The best one last, above the others.
  for each in reversed(found):
    x, y, width, height = each["bbox"]
    colour = _colour(each["category_id"] - 1)
    corners = (x, y, max(x, x + width - 1), max(y, y + height - 1))
    draw.rectangle(corners, outline=colour, width=line)
    text = f"{each['label']} {each['score']:.2f}"
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    at = (min(x, image.width - right), max(0, y - (bottom + 2)))
    at = (max(0, at[0]), at[1])
    label = (*at, at[0] + right - min(left, 0), at[1] + bottom + 2)
    others = (other["bbox"] for other in found if other is not each)
    if any(_hides(label, box) for box in others):
      continue
    draw.rectangle(label, fill=colour)
    draw.text(at, text, fill=_ink(colour), font=font)
  return np.asarray(image)


def _hides(label: tuple[float, ...], box: Sequence[float]) -> bool:
  """Whether (x0, y0, x1, y1) hides half of a box (x, y, width, height)."""
  x, y, width, height = box
  wide = min(label[2], x + width) - max(label[0], x)
  high = min(label[3], y + height) - max(label[1], y)
  return min(wide, high) > 0 and wide * high > width * height / 2


def mask_of(run_lengths: dict) -> np.ndarray:
  """The mask uint8 [h, w] of COCO's run-length encoding."""
  height, width = run_lengths["size"]
  found = outlines.parsed(run_lengths)
  policy = Policy(max_record_bytes=2**40)  # it was made here
  return outlines.masks([found], (width, height), "", policy)[0]


def _tinted(image_HWC: np.ndarray, found: Sequence[dict]) -> np.ndarray:
  """The picture with the masks of objects; of two, the better one is seen."""
  numbers = np.full(image_HWC.shape[:2], masks.IGNORED, np.int32)
  for i, each in reversed(list(enumerate(found))):
    if "segmentation" in each:
      inside = mask_of(each["segmentation"]) > 0
      numbers[inside] = i + (i >= masks.IGNORED)
  return classes(image_HWC, numbers)


def _ink(colour: tuple[int, int, int]) -> tuple[int, int, int]:
  """Black or white, whichever is legible on a colour."""
  red, green, blue = colour
  light = 0.299 * red + 0.587 * green + 0.114 * blue > 140
  return (0, 0, 0) if light else (255, 255, 255)
