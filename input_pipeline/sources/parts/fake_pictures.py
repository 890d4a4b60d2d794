"""Synthetic pictures with boxes or masks, computed from their indices."""

import numpy as np

from input_pipeline.sources import Source


def fake_boxes(
  n: int = 64,
  size: int = 64,
  classes: int = 3,
  most: int = 4,
  instances: int = 0,
  seed: int = 0,
):
  """Pictures of bright rectangles on noise; the colour is the class.

  {"image": uint8 [size, size, 3], "boxes": float32 [n, 4], "classes": int32
  [n], "difficult": int32 [n]} as of voc:, with 0 to `most` boxes. With
  `instances` 1 it has "crowd" and "instances": uint8 [n, size, size] as of
  masks:DIR?instances=true, in place of "difficult".
  """
  names = ("boxes", "classes", "difficult")
  if instances:
    names = ("boxes", "classes", "crowd", "instances")

  def picture(index: int):
    rng = np.random.default_rng([seed, index])
    image = rng.integers(0, 80, (size, size, 3), np.uint8)
    count = int(rng.integers(0, most + 1))
    sides = rng.integers(max(1, size // 6), max(2, size // 3), (count, 2))
    starts = rng.integers(0, size - sides)
    boxes = np.concatenate([starts, starts + sides], 1)
    kinds = rng.integers(0, classes, count)
    for (x0, y0, x1, y1), kind in zip(boxes, kinds, strict=True):
      image[y0:y1, x0:x1] = _colour(int(kind))
    kinds = kinds.astype(np.int32)
    found = np.zeros((count, size, size), np.uint8)
    for mask, (x0, y0, x1, y1) in zip(found, boxes, strict=True):
      mask[y0:y1, x0:x1] = 1
    boxes = boxes.astype(np.float32)
    return image, boxes, kinds, np.zeros_like(kinds), found

  def read(indices: np.ndarray) -> dict[str, np.ndarray]:
    found = [picture(int(i)) for i in indices]
    rows = {
      "image": np.array([each[0] for each in found], np.uint8).reshape(
        -1, size, size, 3
      )
    }
    for place, name in enumerate(names, 1):
      rows[name] = np.empty(len(found), object)
      for i, each in enumerate(found):
        rows[name][i] = each[place]
    return rows

  source = Source(n, read, str, num_classes=classes)
  kinds = tuple(f"class {c}" for c in range(classes))
  ragged = {"ragged": {"instances": 3}} if instances else {}
  return source._replace(class_names=kinds, **ragged)


def fake_masks(
  n: int = 64,
  size: int = 32,
  classes: int = 3,
  empty: float = 0.1,
  seed: int = 0,
):
  """Pictures of a rectangle on a ground; the class of a pixel is its colour.

  {"image": uint8 [size, size, 3], "segmentation": int32 [size, size]}. A share
  `empty` of the pixels has the value `classes`, which is no class.
  """

  def picture(index: int):
    rng = np.random.default_rng([seed, index])
    ground, kind = rng.permutation(classes)[:2] if classes > 1 else (0, 0)
    target = np.full((size, size), ground, np.int32)
    y, x = rng.integers(0, size // 2, 2)
    target[y : y + size // 2, x : x + size // 2] = kind
    colours = np.array([_colour(c) for c in range(classes)])
    noise = rng.integers(-20, 21, (size, size, 3))
    image = np.clip(colours[target] + noise, 0, 255).astype(np.uint8)
    target[rng.random((size, size)) < empty] = classes
    return image, target

  def read(indices: np.ndarray) -> dict[str, np.ndarray]:
    found = [picture(int(i)) for i in indices]
    return {
      name: np.array([each[i] for each in found], dtype).reshape(
        len(found), size, size, *tail
      )
      for i, (name, dtype, tail) in enumerate(
        (("image", np.uint8, (3,)), ("segmentation", np.int32, ()))
      )
    }

  names = tuple(f"class {c}" for c in range(classes))
  return Source(n, read, str, num_classes=classes, class_names=names)


def _colour(kind: int) -> tuple[int, int, int]:
  """A bright colour of each class."""
  return 120 + 67 * kind % 136, 120 + 101 * kind % 136, 120 + 29 * kind % 136
