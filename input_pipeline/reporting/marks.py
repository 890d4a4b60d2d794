"""What is drawn over pictures: boxes with their classes, and masks.

A mask of classes has the colours of the classes, and each mask of an object,
which several of one class may touch, has a colour of its own.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from input_pipeline.reading import masks

# The share of a mask's colour in the pixels that it covers.
_ALPHA = 0.55
# The golden ratio's part spreads any number of hues evenly.
_HUE = 0.618034


class Marks(NamedTuple):
  """What is known about the places in a picture.

  boxes: float [n, 4], each (x0, y0, x1, y1) in pixels.
  classes: int [n].
  texts: n captions of the boxes.
  segmentation: int [h, w], or None.
  instances: int [m, h, w], 1 inside of each object, or None.
  """

  boxes: np.ndarray = np.zeros((0, 4))
  classes: np.ndarray = np.zeros(0, int)
  texts: tuple[str, ...] = ()
  segmentation: np.ndarray | None = None
  instances: np.ndarray | None = None


def found(
  row: Mapping[str, Any], class_names: Sequence[str] = ()
) -> Marks | None:
  """The marks of a record or of a row of a batch; None if it has none.

  Args:
    row: may have "boxes" [n, 4] with "classes" and "boxes_mask" [n], and
      "segmentation", the bytes of a PNG or [h, w], and "instances" [n, h, w]
      with "instances_mask" [n].
    class_names: the names of the classes, as far as they are known.
  """
  boxes, mask = row.get("boxes"), row.get("segmentation")
  if isinstance(mask, bytes):
    mask = masks.decode(mask)
  mask = None if mask is None else np.asarray(mask)
  if mask is not None and mask.ndim == 3:
    mask = mask[..., 0]
  objects = _instances(row)
  if boxes is None or np.ndim(boxes) != 2 or np.shape(boxes)[1] != 4:
    if mask is None and objects is None:
      return None
    return Marks(segmentation=mask, instances=objects)
  real = np.asarray(row.get("boxes_mask", np.ones(len(boxes)))) > 0
  classes = np.asarray(row.get("classes", np.zeros(len(boxes), int)))
  classes = classes[: len(boxes)][real].astype(int)
  named = dict(enumerate(class_names))
  texts = tuple(named.get(int(n), str(n)) for n in classes)
  return Marks(np.asarray(boxes)[real], classes, texts, mask, objects)


def _instances(row: Mapping[str, Any]) -> np.ndarray | None:
  found = row.get("instances")
  if found is None or np.ndim(found) != 3:
    return None
  real = np.asarray(row.get("instances_mask", np.ones(len(found)))) > 0
  return np.asarray(found)[real]


def colour(number: int) -> tuple[float, float, float]:
  """The colour of a class, red, green and blue from 0 to 1."""
  import colorsys

  return colorsys.hsv_to_rgb((number * _HUE) % 1.0, 0.85, 1.0)


def tinted(image: np.ndarray, marks: Marks | None) -> np.ndarray:
  """The picture under the colours of its masks; 255 is left as it is.

  Args:
    image: uint8 [h, w, c].
    marks: of the picture.
  """
  layers = [] if marks is None else list(_layers(marks))
  layers = [each for each in layers if each[1].shape == image.shape[:2]]
  if not layers:
    return image
  rgb = np.repeat(image, 3, -1) if image.shape[2] == 1 else image[..., :3]
  rgb = rgb.astype(float)
  for number, here in layers:
    tint = 255 * np.array(colour(number))
    rgb[here] = (1 - _ALPHA) * rgb[here] + _ALPHA * tint
  return np.rint(rgb).astype(np.uint8)


def _layers(marks: Marks) -> Iterator[tuple[int, np.ndarray]]:
  """Yields (number of a colour, bool [h, w]) of classes, then of objects."""
  if marks.segmentation is not None:
    for number in np.unique(marks.segmentation):
      if number != masks.IGNORED:
        yield int(number), marks.segmentation == number
  if marks.instances is not None:
    for number, inside in enumerate(marks.instances):
      yield number, inside > 0
