"""Crops that are drawn with regard to the boxes of a picture."""

import tensorflow as tf

from input_pipeline.ops import Example, on_example
from input_pipeline.ops.image import pair, resized_crop
from input_pipeline.ops.parts import moving


@on_example
def safe_crop(
  example: Example,
  size: int | tuple[int, int],
  method: str = "bilinear",
  keep: float = 0.25,
  *,
  seed,
) -> Example:
  """A random window that holds all boxes completely, resized to `size`.

  Each side of the window lies uniformly between that of the picture and the
  nearest box. Without boxes the window has a uniform position and from half to
  all of each side.

  Args:
    example: has "image" [h, w, c] and "boxes".
    size: of the result, a number for a square, or (height, width).
    method: of tf.image.resize.
    keep: of boxes that reach beyond the picture; see the other crops.
    seed: int64 [2].
  """
  image, boxes = _given(example)
  full = tf.cast(tf.shape(image)[1::-1], tf.float32)  # width, height
  draw = tf.random.stateless_uniform([4], seed)
  low = tf.minimum(tf.reduce_min(boxes[:, :2], axis=0), full)
  high = tf.maximum(tf.reduce_max(boxes[:, 2:], axis=0), 0.0)
  some = tf.shape(boxes)[0] > 0
  # The room around all boxes, or around a half that is placed at random.
  middle = full * (0.25 + 0.5 * draw[:2])
  low = tf.where(some, tf.maximum(low, 0.0), middle - full * 0.25)
  high = tf.where(some, tf.minimum(high, full), middle + full * 0.25)
  begin = tf.floor(low * draw[:2])
  end = tf.math.ceil(high + (full - high) * draw[2:])
  return _cropped(example, begin, end - begin, size, method, keep)


@on_example
def iou_crop(
  example: Example,
  size: int | tuple[int, int],
  least: tuple[float, ...] = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0),
  shortest: float = 0.3,
  ratio: tuple[float, float] = (0.5, 2.0),
  tries: int = 50,
  method: str = "bilinear",
  keep: float = 0.25,
  *,
  seed,
) -> Example:
  """A random window that overlaps a box as demanded, resized to `size`.

  One of the overlaps `least` is drawn, and the first of `tries` windows whose
  IoU with some box is at least that is taken; if there is none, or 1 is drawn,
  all of the picture. After the single-shot detector, arXiv:1512.02325, section
  2.2; what becomes of boxes that are cut is for `keep` to say.

  Args:
    example: has "image" [h, w, c] and "boxes".
    size: of the result, a number for a square, or (height, width).
    least: the overlaps to draw from.
    shortest: the least side of a window, as a share of the picture's.
    ratio: the least and the most of a window's width over its height, as shares
      of the picture's sides.
    tries: the number of windows.
    method: of tf.image.resize.
    keep: a box is left out unless this share of its area remains.
    seed: int64 [2].
  """
  if not least or not 0 < shortest <= 1 or not 0 < ratio[0] <= ratio[1]:
    raise ValueError(
      f"least={least!r}, shortest={shortest!r}, ratio={ratio!r}: an argument is"
      " out of its range"
    )
  image, boxes = _given(example)
  full = tf.cast(tf.shape(image)[1::-1], tf.float32)
  seeds = tf.random.split(seed, 2)
  draw = tf.random.stateless_uniform([tries, 4], seeds[0])
  sides = draw[:, :2] * (1.0 - shortest) + shortest
  extent = tf.maximum(tf.floor(sides * full), 1.0)
  begin = tf.floor(draw[:, 2:] * (full - extent))
  place = tf.cast(
    tf.random.stateless_uniform([], seeds[1]) * len(least), tf.int32
  )
  bound = tf.constant(least, tf.float32)[tf.minimum(place, len(least) - 1)]
  shape = sides[:, 0] / sides[:, 1]
  good = (shape >= ratio[0]) & (shape <= ratio[1])
  good &= tf.reduce_any(_iou(begin, begin + extent, boxes) >= bound, axis=1)
  good &= bound < 1.0
  # The whole picture is the last of the windows.
  begin = tf.concat([begin, tf.zeros([1, 2])], axis=0)
  extent = tf.concat([extent, full[None]], axis=0)
  good = tf.concat([good, [True]], axis=0)
  first = tf.argmax(tf.cast(good, tf.int32))
  return _cropped(example, begin[first], extent[first], size, method, keep)


def _given(example: Example) -> tuple[tf.Tensor, tf.Tensor]:
  missing = [n for n in ("image", moving.BOXES) if n not in example]
  if missing:
    raise ValueError(f"no field {missing[0]!r}; valid: {', '.join(example)}")
  image = example["image"]
  if image.dtype == tf.string:
    raise ValueError("the image is not decoded; add the op 'decode' before it")
  return image, tf.cast(example[moving.BOXES], tf.float32)


def _iou(low: tf.Tensor, high: tf.Tensor, boxes: tf.Tensor) -> tf.Tensor:
  """The IoU of windows [t, 2] and boxes [n, 4], float32 [t, n]."""
  inner_low = tf.maximum(low[:, None], boxes[None, :, :2])
  inner_high = tf.minimum(high[:, None], boxes[None, :, 2:])
  inner = tf.reduce_prod(tf.maximum(inner_high - inner_low, 0.0), axis=2)
  windows = tf.reduce_prod(high - low, axis=1)[:, None]
  areas = tf.reduce_prod(boxes[:, 2:] - boxes[:, :2], axis=1)[None]
  return inner / tf.maximum(windows + areas - inner, 1e-9)


def _cropped(
  example: Example, begin, extent, size, method: str, keep: float
) -> Example:
  """The example cut to the window from `begin` = (x, y) on, and resized."""
  image = example["image"]
  start = tf.cast(tf.stack([begin[1], begin[0], 0.0]), tf.int32)
  sides = tf.cast(tf.stack([extent[1], extent[0], -1.0]), tf.int32)
  value, source = resized_crop(image, start, sides, pair(size), method)
  found = moving.moved(example, image, value, source, keep)
  return {**example, "image": value, **found}
