"""The boxes and masks of a data set's records, kept as a few numbers each.

They are of the fields "boxes", "classes", "segmentation" and "instances" of
records that have an "image".
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from input_pipeline.reading import image_size

_IMAGE, _BOXES, _CLASSES = "image", "boxes", "classes"
_MASKS = ("segmentation", "instances")


class Objects(NamedTuple):
  """What is known of n records with m boxes in all.

  boxes: float64 [m, 4], each (x0, y0, x1, y1) in pixels.
  classes: int64 [m], -1 if unknown.
  rows: int64 [m], the record of each box.
  sizes: int64 [n, 2], (width, height) of the pictures; zeros if unknown.
  masks: int64 [n, 2], the size of the first mask that has another size than its
    picture; zeros if there is none.
  fields: those of the records.
  """

  boxes: np.ndarray
  classes: np.ndarray
  rows: np.ndarray
  sizes: np.ndarray
  masks: np.ndarray
  fields: tuple[str, ...]


def measured(rows: Mapping, n: int) -> Objects | None:
  """The objects of n records; None if they have no boxes and no masks."""
  fields = tuple(f for f in (_BOXES, *_MASKS) if f in rows)
  if _IMAGE not in rows or not fields:
    return None
  sizes, masks = np.zeros((n, 2), np.int64), np.zeros((n, 2), np.int64)
  boxes, classes, places = [], [], []
  for i in range(n):
    sizes[i] = _size(rows[_IMAGE][i])
    for field in fields:
      if field != _BOXES:
        size = _size(rows[field][i], field == _MASKS[1])
        if all(size) and all(sizes[i]) and size != tuple(sizes[i].tolist()):
          masks[i] = size
    found = _numbers(rows[_BOXES][i]) if _BOXES in rows else np.zeros((0, 4))
    boxes.append(found)
    own = np.asarray(rows[_CLASSES][i]) if _CLASSES in rows else np.zeros(0)
    known = own.shape == (len(found),) and own.dtype.kind in "iu"
    classes.append(own if known else np.full(len(found), -1))
    places.append(np.full(len(found), i))
  return Objects(
    np.concatenate(boxes).reshape(-1, 4),
    np.concatenate(classes).astype(np.int64),
    np.concatenate(places).astype(np.int64),
    sizes,
    masks,
    fields,
  )


def _numbers(value) -> np.ndarray:
  """Boxes as float64 [m, 4]; none of a value that is no such array."""
  found = np.asarray(value)
  if found.ndim != 2 or found.shape[1] != 4 or found.dtype.kind not in "iuf":
    return np.zeros((0, 4))
  return found.astype(np.float64)


def _size(value, stacked: bool = False) -> tuple[int, int]:
  """(width, height) of a picture or a mask; zeros if it has none."""
  if isinstance(value, bytes):
    return image_size.image_size(value)[:2]
  shape = np.shape(value)
  if stacked:
    return (shape[2], shape[1]) if len(shape) == 3 and shape[0] else (0, 0)
  return (shape[1], shape[0]) if len(shape) in (2, 3) else (0, 0)


def joined(parts: list[Objects | None]) -> Objects | None:
  """The objects of consecutive chunks."""
  known = [each for each in parts if each is not None]
  if not known or len(known) < len(parts):
    return None
  starts = np.cumsum([0, *(len(each.sizes) for each in known)])
  moved = [
    each._replace(rows=each.rows + start)
    for start, each in zip(starts, known, strict=False)
  ]
  first = known[0]
  return Objects(
    *(np.concatenate([e[i] for e in moved]) for i in range(5)), first.fields
  )


def take(found: Objects | None, rows: np.ndarray) -> Objects | None:
  """The objects of some records, which are numbered anew."""
  if found is None:
    return None
  place = np.full(len(found.sizes), -1)
  place[rows] = np.arange(len(rows))
  kept = place[found.rows] >= 0
  return found._replace(
    boxes=found.boxes[kept],
    classes=found.classes[kept],
    rows=place[found.rows[kept]],
    sizes=found.sizes[rows],
    masks=found.masks[rows],
  )
