"""The classes of Cityscapes: the ids in its files and those it is trained on.

The numbers are those of the benchmark's own table (cityscapesScripts).
"""

import numpy as np

from input_pipeline.reading import masks

# By the ids in files, from 0.
LABELS = (
  "unlabeled", "ego vehicle", "rectification border", "out of roi", "static",
  "dynamic", "ground", "road", "sidewalk", "parking", "rail track", "building",
  "wall", "fence", "guard rail", "bridge", "tunnel", "pole", "polegroup",
  "traffic light", "traffic sign", "vegetation", "terrain", "sky", "person",
  "rider", "car", "truck", "bus", "caravan", "trailer", "train", "motorcycle",
  "bicycle",
)  # fmt: skip
# The ids of the classes that are trained and scored, in their order.
_TRAINED = (
  7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33,
)  # fmt: skip
# Those of which single objects are known: the last of the trained ones.
_THINGS = _TRAINED[11:]
TRAINED = tuple(LABELS[i] for i in _TRAINED)
THINGS = tuple(LABELS[i] for i in _THINGS)
# The ids of objects are 1000 times their class and a number.
_OBJECT = 1000


def trained(labels: np.ndarray) -> np.ndarray:
  """The ids of files -> 0 to 18, or 255 for what is not trained, uint8."""
  table = np.full(256, masks.IGNORED, np.uint8)
  table[list(_TRAINED)] = np.arange(len(_TRAINED))
  return table[np.clip(labels, 0, 255)]


def things(ids: np.ndarray) -> tuple[list[int], list[int], list[int]]:
  """The objects of a mask of instance ids.

  Returns:
    their ids, their classes in THINGS, and 1 for those that are groups.
  """
  found: tuple[list[int], list[int], list[int]] = ([], [], [])
  for number in np.unique(ids).tolist():
    group = number < _OBJECT
    label = number if group else number // _OBJECT
    if label in _THINGS:
      for values, value in zip(
        found, (number, _THINGS.index(label), int(group)), strict=True
      ):
        values.append(value)
  return found
