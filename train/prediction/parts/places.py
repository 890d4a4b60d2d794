"""From pixels of the model's input to those of the original file."""

from collections.abc import Iterator

import numpy as np

from train.evaluators.average_precision import probability, upright

# The value of pixels that the model's input does not cover.
OUTSIDE = 255
# Rows of the original that are computed at once.
_ROWS = 64


def box(
  corners: np.ndarray, place: np.ndarray, size: tuple[int, int]
) -> list[float] | None:
  """A box (x0, y0, x1, y1) in the original; None if it lies outside of it.

  Args:
    corners: (x0, y0, x1, y1) in the input.
    place: [2, 3], from the input to the original.
    size: (width, height) of the original.
  """
  x0, y0, x1, y1 = upright(np.asarray(corners, np.float64), place)
  x0, x1 = (min(max(x, 0.0), float(size[0])) for x in (x0, x1))
  y0, y1 = (min(max(y, 0.0), float(size[1])) for y in (y0, y1))
  return [x0, y0, x1, y1] if x1 > x0 and y1 > y0 else None


def mask(
  share_hw: np.ndarray,
  corners: np.ndarray,
  place: np.ndarray,
  size: tuple[int, int],
) -> np.ndarray:
  """A mask bool [height, width] of probabilities within a box.

  Args:
    share_hw: probabilities, evenly spread over the box.
    corners: the box in the input.
    place: [2, 3].
    size: (width, height) of the original.
  """
  found = np.zeros(size[::-1], bool)
  around = box(corners, place, size)
  if around is None:
    return found
  left, top = np.floor(around[:2]).astype(int)
  right, bottom = np.ceil(around[2:]).astype(int)
  columns = np.arange(left, right) + 0.5
  for first in range(top, bottom, _ROWS):
    rows = np.arange(first, min(first + _ROWS, bottom)) + 0.5
    value, inside = probability(_spots(columns, rows, place), share_hw, corners)
    part = found[first : first + len(rows), left:right]
    part[:] = (value > 0.5) & inside
  return found


def classes(
  logits_HWC: np.ndarray, place: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
  """The class of each pixel of the original, int32 [height, width].

  The logits are interpolated bilinearly. Pixels that the input does not cover
  are OUTSIDE.

  Args:
    logits_HWC: of the input.
    place: [2, 3].
    size: (width, height) of the original.
  """
  width, height = size
  found = np.full((height, width), OUTSIDE, np.int32)
  extent = np.array([0, 0, *logits_HWC.shape[1::-1]], np.float64)
  columns = np.arange(width) + 0.5
  for first in range(0, height, _ROWS):
    rows = np.arange(first, min(first + _ROWS, height)) + 0.5
    spots = _spots(columns, rows, place)
    value, inside = probability(spots, logits_HWC, extent)
    part = found[first : first + len(rows)]
    part[:] = np.where(inside, value.argmax(-1), OUTSIDE)
  return found


def run_lengths(mask_HW: np.ndarray) -> dict:
  """A mask as COCO writes it: {"size": [height, width], "counts": text}.

  Raises:
    ValueError: pycocotools is not installed.
  """
  from input_pipeline.reading.annotations import outlines

  encoded = outlines.library().encode(
    np.asfortranarray(mask_HW, dtype=np.uint8)
  )
  counts = encoded["counts"]
  return {
    "size": [int(n) for n in encoded["size"]],
    "counts": counts.decode() if isinstance(counts, bytes) else counts,
  }


def each(values: dict, row: int) -> Iterator[dict[str, np.ndarray]]:
  """Yields the detections of a row that have a score, best first."""
  scores = values["scores"][row]
  for i in np.argsort(-scores, kind="stable"):
    if scores[i] > 0:
      yield {name: value[row, i] for name, value in values.items()}


def _spots(columns: np.ndarray, rows: np.ndarray, place: np.ndarray):
  """The centres of pixels of the original as positions (x, y) in the input."""
  place = np.asarray(place, np.float64)
  spots = np.stack(np.meshgrid(columns, rows), -1) - place[:, 2]
  return spots @ np.linalg.inv(place[:, :2]).T
