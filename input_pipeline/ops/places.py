"""Ops on pictures with boxes, keypoints or masks; see parts/moving.py."""

import tensorflow as tf

from input_pipeline.ops import Example, on_example, on_group
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


@on_group(partners=3)
def mosaic(
  example: Example,
  partners: list[Example],
  p: float = 1.0,
  least: float = 0.25,
  keep: float = 0.25,
  *,
  seed,
) -> Example:
  """A window on the corner where four pictures meet, with the boxes of all.

  The four pictures, of the same size, are laid out as two rows of two, the
  example's own first, and a window of their size is cut out. The point where
  they meet is drawn at random in it, so that of each side the first picture has
  at least the share `least`, and so has the last one. The pictures keep their
  scale. This is the mosaic of arXiv:2004.10934.

  Args:
    example: has "image", and any of "boxes", "keypoints" and "segmentation".
    partners: the other three examples, with the same fields.
    p: the probability that there are other pictures.
    least: from 0 to 0.5.
    keep: a box is left out unless this share of its area remains.
    seed: int64 [2].

  Raises:
    ValueError: the sizes differ, or an argument is out of its range.
  """
  if not 0 <= least <= 0.5:
    raise ValueError(f"least={least!r} is not from 0 to 0.5")
  examples = [example, *partners]
  images = _images(examples)
  own, size = images[0], images[0].shape[:2]
  draw = tf.random.stateless_uniform([3], seed)
  share = draw[:2] * (1.0 - 2.0 * least) + least
  cut = tf.cast(tf.round(share * tf.cast(size, tf.float32)), tf.int32)
  cut = tf.where(draw[2] < p, cut, 0)  # [2], of the window's rows and columns

  def window(four: list[tf.Tensor]) -> tf.Tensor:
    rows = [tf.concat(four[:2], axis=1), tf.concat(four[2:], axis=1)]
    begin = tf.pad(cut, [[0, four[0].shape.rank - 2]])
    found = tf.slice(tf.concat(rows, axis=0), begin, four[0].shape)
    return tf.ensure_shape(found, four[0].shape)

  def part(i: int, given: Example) -> Example:
    row, column = divmod(i, 2)
    source = moving.translation(
      cut[1] - column * size[1], cut[0] - row * size[0]
    )
    given = {k: v for k, v in given.items() if k != moving.SEGMENTATION}
    return moving.moved(given, own, own, source, keep)

  parts = [part(i, each) for i, each in enumerate(examples)]
  merged = {
    name: value
    if name == moving.PLACE
    else tf.concat([each[name] for each in parts], axis=0)
    for name, value in parts[0].items()
  }
  if moving.SEGMENTATION in example:
    merged[moving.SEGMENTATION] = window(
      [each[moving.SEGMENTATION] for each in examples]
    )
  return {**example, "image": window(images), **merged}


def _images(examples: list[Example]) -> list[tf.Tensor]:
  """The pictures, whose sizes are known and equal."""
  if "image" not in examples[0]:
    raise ValueError(f"no field 'image'; valid: {', '.join(examples[0])}")
  found = [each["image"] for each in examples]
  known = found[0].shape.rank == 3 and found[0].shape.is_fully_defined()
  if not known or any(each.shape != found[0].shape for each in found):
    raise ValueError(
      "needs images of the same size; add decode and resize(...) or a crop"
      " before it"
    )
  return found
