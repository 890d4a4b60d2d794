"""Ops on pictures with boxes, keypoints or masks; see parts/moving.py."""

import tensorflow as tf

from input_pipeline.ops import Example, on_example, on_pair
from input_pipeline.ops.parts import moving


@on_example
def track_place(example: Example) -> Example:
  """Adds the field "place", float32 [2, 3], which follows the ops after it.

  It is the affine map from a position (x, y) in the picture as it leaves the
  ops to the position in the picture as it is now, in pixels from the upper left
  corner: predicted boxes are mapped back to the original file by it. After
  `mosaic` it is that of the example's own picture.
  """
  if moving.PLACE in example:
    raise ValueError(f"there is a field {moving.PLACE!r} already")
  return {**example, moving.PLACE: tf.eye(2, 3)}


@on_pair
def mosaic(
  example: Example,
  partner: Example,
  p: float = 1.0,
  least: float = 0.25,
  vertical: bool = False,
  keep: float = 0.25,
  *,
  seed,
) -> Example:
  """The picture continued by that of another example, with the boxes of both.

  The two pictures, of the same size, are laid side by side, or with `vertical`
  one above the other, and a window of their size is cut out. It begins with the
  end of the example's own picture and ends with the beginning of the other one,
  of which each has at least the share `least`. This is the mosaic of
  arXiv:2004.10934 with two pictures in place of four, at their own scale.

  Args:
    example: has "image", and any of "boxes", "keypoints" and "segmentation".
    partner: the other example, with the same fields.
    p: the probability that there is a second picture.
    least: from 0 to 0.5.
    vertical: whether the other picture is below.
    keep: a box is left out unless this share of its area remains.
    seed: int64 [2].

  Raises:
    ValueError: the sizes differ, or an argument is out of its range.
  """
  if not 0 <= least <= 0.5:
    raise ValueError(f"least={least!r} is not from 0 to 0.5")
  own, other = _images(example, partner)
  axis = 0 if vertical else 1
  size = own.shape[axis]
  draw = tf.random.stateless_uniform([2], seed)
  share = draw[0] * (1.0 - 2.0 * least) + least
  cut = tf.cast(tf.round(share * size), tf.int32)
  cut = tf.where(draw[1] < p, cut, 0)

  def window(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    joined = tf.concat([first, second], axis)
    begin = [0] * joined.shape.rank
    begin[axis] = cut
    found = tf.slice(joined, begin, first.shape)
    return tf.ensure_shape(found, first.shape)

  def part(given: Example, start: tf.Tensor) -> Example:
    shift = (0, start) if vertical else (start, 0)
    source = moving.translation(*shift)
    given = {k: v for k, v in given.items() if k != moving.SEGMENTATION}
    return moving.moved(given, own, own, source, keep)

  first, second = part(example, cut), part(partner, cut - size)
  merged = {
    name: tf.concat([value, second[name]], axis=0)
    for name, value in first.items()
    if name != moving.PLACE
  }
  merged |= {k: v for k, v in first.items() if k == moving.PLACE}
  if moving.SEGMENTATION in example:
    masks = [each[moving.SEGMENTATION] for each in (example, partner)]
    merged[moving.SEGMENTATION] = window(*masks)
  return {**example, "image": window(own, other), **merged}


def _images(example: Example, partner: Example):
  """Both pictures, whose sizes are known and equal."""
  own, other = example.get("image"), partner.get("image")
  if own is None:
    raise ValueError(f"no field 'image'; valid: {', '.join(example)}")
  known = own.shape.rank == 3 and own.shape.is_fully_defined()
  if not known or own.shape != other.shape:
    raise ValueError(
      "needs images of the same size; add decode and resize(...) or a crop"
      " before it"
    )
  return own, other
