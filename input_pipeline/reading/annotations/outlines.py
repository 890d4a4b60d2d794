"""The outlines of objects: polygons and run-length encodings, as COCO has them.

pycocotools, the reference implementation, turns polygons into a run-length
encoding. This is either a list of numbers (uncompressed) or a text
(compressed); both count pixels down the columns of the picture.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from input_pipeline.bad_records import Policy, check_size
from input_pipeline.reading import masks as masks_lib

# What pycocotools allocates for each step along the side of a polygon.
_BYTES_A_STEP = 80
# Of a number of a compressed encoding, in characters of five bits.
_LONGEST_NUMBER = 7


class Polygons(NamedTuple):
  """Parts of an object: float64 [2 k] each, x and y in turn, k >= 3."""

  parts: tuple[np.ndarray, ...]


class Runs(NamedTuple):
  """A run-length encoding of a mask of a size (height, width)."""

  size: tuple[int, int]
  counts: bytes | np.ndarray  # the text, or int64 [n]


Outline = Polygons | Runs


def polygons(parts: Any) -> Polygons | None:
  """The polygons of lists of numbers; None if no part has three points.

  Raises:
    ValueError: a part is not a list of an even number of finite numbers.
  """
  found = []
  for part in parts:
    points = _numbers(part)
    if points is None or points.dtype.kind not in "iuf" or points.ndim != 1:
      raise ValueError("a polygon is not a list of numbers")
    if len(points) % 2:
      raise ValueError(f"a polygon has {len(points):,} numbers, which is odd")
    points = points.astype(np.float64)
    if not (np.abs(points) < 2**24).all():
      raise ValueError("a polygon has a number that is no pixel")
    # Two points have no area, and pycocotools takes four numbers for a box.
    if len(points) >= 6:
      found.append(points)
  return Polygons(tuple(found)) if found else None


def parsed(value: Any) -> Outline | None:
  """The outline of COCO's field "segmentation"; None if it is empty.

  Raises:
    ValueError: it is none of the forms that COCO defines.
  """
  if value is None or isinstance(value, list):
    return polygons(value or ())
  if not isinstance(value, dict):
    raise ValueError("segmentation is neither polygons nor a run-length code")
  size, counts = value.get("size"), value.get("counts")
  sides = isinstance(size, list) and [type(n) for n in size] == [int, int]
  if not sides or min(size) < 1:
    raise ValueError("the size of a run-length code is not [height, width]")
  if isinstance(counts, str):
    return Runs(tuple(size), counts.encode("utf-8", "replace"))
  numbers = _numbers(counts)
  if numbers is None or numbers.ndim != 1 or numbers.dtype.kind not in "iu":
    # An empty list has no integers; its sum is reported when it is decoded.
    if counts != []:
      raise ValueError("the counts of a run-length code are not integers")
    numbers = np.zeros(0, np.int64)
  return Runs(tuple(size), numbers)


def _numbers(value: Any) -> np.ndarray | None:
  if not isinstance(value, (list, np.ndarray)):
    return None
  try:
    return np.array(value)
  except (ValueError, OverflowError, RecursionError):  # lists of lists
    return None


def masks(
  found: Sequence[Outline], size: tuple[int, int], name: str, policy: Policy
) -> np.ndarray:
  """The masks of objects, uint8 [n, height, width], 1 inside.

  Args:
    found: the outline of each object.
    size: (width, height) of the picture.
    name: of the picture, for errors.
    policy: how large the masks may be.

  Raises:
    ValueError: an outline does not fit the picture, or the masks are too
      large; one line that names the picture.
  """
  width, height = size
  n = len(found)
  what = f"{n:,} masks of {width:,} x {height:,} pixels, "
  check_size(n * width * height, name, policy, what)
  result = np.zeros((n, height, width), np.uint8)
  for i, outline in enumerate(found):
    try:
      result[i] = _mask(outline, width, height, policy)
    except ValueError as error:
      reason = (str(error).strip().splitlines() or ["it is malformed"])[0]
      raise ValueError(f"{name}: the mask of object {i}: {reason}") from None
  return result


def _mask(
  outline: Outline, width: int, height: int, policy: Policy
) -> np.ndarray:
  if isinstance(outline, Polygons):
    for part in outline.parts:
      _check_extent(part, width, height, policy)
    coder = library()
    codes = coder.frPyObjects(
      [part.tolist() for part in outline.parts], height, width
    )
    outline = Runs((height, width), coder.merge(codes)["counts"])
  if outline.size != (height, width):
    sizes = masks_lib.sizes(outline.size[::-1], (width, height))
    raise ValueError(f"it is {sizes}")
  counts = outline.counts
  counts = numbers_of(counts) if isinstance(counts, bytes) else counts
  if (counts < 0).any() or sum(counts.tolist()) != width * height:
    raise ValueError(
      f"its run lengths are not counts with the sum {width * height:,}, the"
      " pixels of the picture"
    )
  inside = (np.arange(len(counts)) % 2).astype(np.uint8)
  # Of columns, one after the other; pycocotools' own decode warns of NumPy 2.
  return np.repeat(inside, counts).reshape(width, height).T


def _check_extent(
  part: np.ndarray, width: int, height: int, policy: Policy
) -> None:
  """Raises ValueError for a polygon that takes much memory to draw."""
  points = part.reshape(-1, 2)
  far = max(width, height)
  if (points < -far).any() or (points > [width + far, height + far]).any():
    raise ValueError("a polygon reaches far beyond the picture")
  sides = np.abs(np.diff(points, axis=0, append=points[:1])).max(1).sum()
  bytes_needed = math.ceil(sides + len(points)) * _BYTES_A_STEP
  check_size(bytes_needed, "a polygon", policy, f"{len(points):,} points, ")


def numbers_of(text: bytes) -> np.ndarray:
  """The run lengths of a compressed encoding, int64 [n].

  A number is written in groups of five bits, the lowest first, as characters
  from 48 on; from the fourth number on it is the difference to the one two
  places before.

  Raises:
    ValueError: the text is no such encoding.
  """
  groups = np.frombuffer(text, np.uint8).astype(np.int64) - 48
  if not groups.size:
    return np.zeros(0, np.int64)
  ends = np.flatnonzero(groups < 32)
  starts = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else ends
  sizes = ends + 1 - starts
  valid = groups.min() >= 0 and groups.max() < 64 and groups[-1] < 32
  if not valid or sizes.max() > _LONGEST_NUMBER:
    raise ValueError("its run-length code is malformed")
  place = np.arange(len(groups)) - np.repeat(starts, sizes)
  found = np.add.reduceat((groups & 31) << (5 * place), starts)
  found -= np.where(groups[ends] & 16, 1 << (5 * sizes), 0)
  found[1::2] = np.cumsum(found[1::2])
  found[2::2] = np.cumsum(found[2::2])
  return found


def box_of(outline: Outline) -> tuple[float, float, float, float] | None:
  """(x0, y0, x1, y1) around polygons; None for a run-length encoding."""
  if isinstance(outline, Runs):
    return None
  points = np.concatenate(outline.parts).reshape(-1, 2)
  return (*points.min(0).tolist(), *points.max(0).tolist())


def library() -> Any:
  """The module pycocotools.mask; ValueError if it is not installed."""
  try:
    from pycocotools import mask
  except ImportError:
    raise ValueError(
      "masks of objects need pycocotools, which is not installed: pip install"
      " -e '.[vision]'"
    ) from None
  return mask
