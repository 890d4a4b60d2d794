"""What has a place in a picture moves with it: boxes, points and masks.

Positions are in pixels from the upper left corner of the picture: the pixel in
column i covers i to i + 1. An op that moves pixels gives an affine map, float32
[2, 3], from a position (x, y) in its result to the one in its input, by which
these fields of the example are moved:

  boxes: [n, 4], each (x0, y0, x1, y1).
  keypoints: [n, 2] or [n, k, 2], each (x, y).
  segmentation: integers [h, w] or [h, w, 1], the classes of the pixels; 255
    outside of the picture.
  instances: integers [n, h, w], the mask of each box; 0 outside of the picture.
  place: [2, 3], the map from the present picture to the original one.
"""

from typing import Any

import tensorflow as tf

from input_pipeline.reading import masks

BOXES, KEYPOINTS = "boxes", "keypoints"
SEGMENTATION, INSTANCES, PLACE = "segmentation", "instances", "place"
PLACES = (BOXES, KEYPOINTS, SEGMENTATION, INSTANCES, PLACE)
# Fields of classes or masks, whose values must not be mixed.
MASKS = (SEGMENTATION, INSTANCES)
# Fields with a value for each box.
OF_BOXES = ("classes", "difficult", "crowd", "box_ids", INSTANCES)

Example = dict[str, Any]


def has_places(example: Example) -> bool:
  """Whether a field of the example has to move with the picture."""
  return any(name in example for name in PLACES)


def translation(x: Any, y: Any) -> tf.Tensor:
  """The map whose input is the output moved by (x, y), float32 [2, 3]."""
  return affine(1.0, 0.0, x, 0.0, 1.0, y)


def affine(a: Any, b: Any, x: Any, c: Any, d: Any, y: Any) -> tf.Tensor:
  """The map [[a, b, x], [c, d, y]], float32 [2, 3], of numbers or scalars."""
  numbers = [tf.cast(number, tf.float32) for number in (a, b, x, c, d, y)]
  return tf.reshape(tf.stack(numbers), [2, 3])


def scaling(before: tf.Tensor, after: tf.Tensor) -> tf.Tensor:
  """The map of a picture that is resized, from sizes (height, width)."""
  ratio = tf.cast(before, tf.float32) / tf.cast(after, tf.float32)
  return affine(ratio[1], 0.0, 0.0, 0.0, ratio[0], 0.0)


def moved(
  example: Example,
  picture: tf.Tensor,
  after: tf.Tensor,
  source: tf.Tensor,
  keep: float,
) -> Example:
  """The fields of an example that move, after they have moved.

  Args:
    example: before the op.
    picture: [h, w, c] before the op.
    after: [h', w', c] after the op.
    source: float32 [2, 3], from positions after the op to those before.
    keep: a box is left out, with the values of its own in the fields OF_BOXES,
      unless at least this share of its area remains in the picture.

  Raises:
    ValueError: a field cannot be moved.
  """
  if not 0 <= keep <= 1:
    raise ValueError(f"keep={keep!r} is not a share from 0 to 1")
  found: Example = {}
  if BOXES in example:
    found |= _boxes(example, tf.shape(after)[:2], source, keep)
  if KEYPOINTS in example:
    points = _numbers(example, KEYPOINTS, 2)
    found[KEYPOINTS] = forward(points, source)
  if SEGMENTATION in example:
    found[SEGMENTATION] = _classes(
      example[SEGMENTATION], picture, after, source
    )
  if INSTANCES in example:  # only of the boxes that are kept
    given = found.get(INSTANCES, example[INSTANCES])
    found[INSTANCES] = _instances(given, picture, after, source)
  if PLACE in example:
    found[PLACE] = composed(example[PLACE], source)
  return found


def composed(outer: tf.Tensor, inner: tf.Tensor) -> tf.Tensor:
  """The map `outer` after `inner`, float32 [2, 3]."""
  turned = outer[:, :1] * inner[:1] + outer[:, 1:2] * inner[1:]
  return turned + outer[:, 2:] * tf.constant([[0.0, 0.0, 1.0]])


def forward(points: tf.Tensor, source: tf.Tensor) -> tf.Tensor:
  """Positions [..., 2] of the input of a map -> those in its output."""
  (a, b, x), (c, d, y) = (tf.unstack(row) for row in tf.unstack(source))
  u, v = points[..., 0] - x, points[..., 1] - y
  scale = 1.0 / (a * d - b * c)
  return tf.stack([(d * u - b * v) * scale, (a * v - c * u) * scale], axis=-1)


def _boxes(
  example: Example, size: tf.Tensor, source: tf.Tensor, keep: float
) -> Example:
  """The boxes around the moved ones, within the picture, and their values."""
  if f"{BOXES}_mask" in example:
    raise ValueError(
      "it moves pictures and leaves out the boxes beyond them, so it comes"
      ' before pad(…, inkey="boxes")'
    )
  boxes = _numbers(example, BOXES, 4)
  corners = tf.gather(boxes, [[0, 1], [2, 1], [0, 3], [2, 3]], axis=1)
  corners = forward(corners, source)  # [n, 4, 2]
  low, high = tf.reduce_min(corners, axis=1), tf.reduce_max(corners, axis=1)
  whole = tf.reduce_prod(high - low, axis=1)
  most = tf.cast(size[::-1], tf.float32)
  low = tf.clip_by_value(low, 0.0, most)
  high = tf.clip_by_value(high, 0.0, most)
  left = tf.reduce_prod(high - low, axis=1)
  # A box that is seen whole stays at keep=1, whatever the rounding.
  kept = (left > 0.0) & (left >= (keep - 1e-5) * whole)
  found = {BOXES: tf.boolean_mask(tf.concat([low, high], axis=1), kept)}
  for name in OF_BOXES:
    if name in example:
      values = tf.convert_to_tensor(example[name])
      if values.shape.rank is None or values.shape.rank < 1:
        raise ValueError(f"the field {name!r} has no value for each box")
      found[name] = tf.boolean_mask(values, kept)
  return found


def _numbers(example: Example, name: str, size: int) -> tf.Tensor:
  """A field of positions in float32."""
  value = tf.convert_to_tensor(example[name])
  if value.dtype == tf.string or value.shape[-1:] != [size]:
    raise ValueError(f"the field {name!r} is not numbers [n, {size}]")
  return tf.cast(value, tf.float32)


def _classes(
  value: Any, picture: tf.Tensor, after: tf.Tensor, source: tf.Tensor
) -> tf.Tensor:
  """A mask moved like its picture; the nearest pixel has the class."""
  value = tf.convert_to_tensor(value)
  if value.dtype == tf.string:
    raise ValueError(
      f"the field {SEGMENTATION!r} is not decoded; add the op 'decode_mask'"
      " before it"
    )
  if value.shape.rank not in (2, 3) or not value.dtype.is_integer:
    raise ValueError(
      f"the field {SEGMENTATION!r} is {value.dtype.name} {value.shape}, not"
      " integers [h, w]"
    )
  value = _of_size(value, tf.shape(value)[:2], picture, SEGMENTATION)
  layers = value[..., None] if value.shape.rank == 2 else value
  found = _nearest(
    tf.cast(layers, tf.int32)[None], after, source, masks.IGNORED
  )[0]
  found = found[..., 0] if value.shape.rank == 2 else found
  found.set_shape([*after.shape[:2], *value.shape[2:]])
  return tf.cast(found, value.dtype)


def _instances(
  value: Any, picture: tf.Tensor, after: tf.Tensor, source: tf.Tensor
) -> tf.Tensor:
  """Masks [n, h, w] moved like their picture."""
  value = tf.convert_to_tensor(value)
  if value.shape.rank != 3 or not value.dtype.is_integer:
    raise ValueError(
      f"the field {INSTANCES!r} is {value.dtype.name} {value.shape}, not"
      " integers [n, h, w]"
    )
  value = _of_size(value, tf.shape(value)[1:], picture, INSTANCES)
  found = _nearest(value[..., None], after, source, 0)[..., 0]
  found.set_shape([value.shape[0], *after.shape[:2]])
  return found


def _nearest(
  layers: tf.Tensor, after: tf.Tensor, source: tf.Tensor, fill: int
) -> tf.Tensor:
  """Pictures [n, h, w, c] under a map; each pixel is the nearest one before."""
  (a, b, x), (c, d, y) = (tf.unstack(row) for row in tf.unstack(source))
  # From the centres of pixels, which are counted from 0 here.
  x, y = x + (a + b) * 0.5 - 0.5, y + (c + d) * 0.5 - 0.5
  return tf.raw_ops.ImageProjectiveTransformV3(
    images=layers,
    transforms=tf.stack([a, b, x, c, d, y, 0.0, 0.0])[None],
    output_shape=tf.shape(after)[:2],
    fill_value=tf.constant(fill, tf.float32),
    interpolation="NEAREST",
    fill_mode="CONSTANT",
  )


def _of_size(
  value: tf.Tensor, size: tf.Tensor, picture: tf.Tensor, name: str
) -> tf.Tensor:
  """The masks; an error if their size is not that of the picture."""
  line = f"the field {name!r} has another size than the image"
  same = tf.reduce_all(size == tf.shape(picture)[:2])
  if tf.executing_eagerly():  # The error is then a line of its own.
    if not same:
      raise ValueError(line)
    return value
  with tf.control_dependencies([tf.debugging.Assert(same, [line])]):
    return tf.identity(value)
