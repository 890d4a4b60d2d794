"""Ops on the colours of an image [h, w, c]; from uint8 to uint8."""

import tensorflow as tf

from input_pipeline.ops import on_field
from input_pipeline.ops.image import like, need_uint8

# The luma of ITU-R BT.601, as in PIL and torchvision.
_LUMA = (0.299, 0.587, 0.114)


def grey(image: tf.Tensor) -> tf.Tensor:
  """The luma of a float image, [h, w, 1]."""
  if image.shape[2] == 1:
    return image
  return tf.reduce_sum(image * tf.constant(_LUMA), axis=2, keepdims=True)


def blend(first: tf.Tensor, second: tf.Tensor, factor) -> tf.Tensor:
  """first + factor * (second - first), clipped to 0..255."""
  return tf.clip_by_value(first + factor * (second - first), 0.0, 255.0)


@on_field
def color_jitter(
  value: tf.Tensor,
  brightness: float = 0.0,
  contrast: float = 0.0,
  saturation: float = 0.0,
  hue: float = 0.0,
  *,
  seed,
) -> tf.Tensor:
  """Random changes of colour, in the order of the arguments; uint8.

  Brightness, contrast and saturation are scaled by factors uniform in
  [max(0, 1 - x), 1 + x]. Hue is shifted by a share of the circle uniform in
  [-hue, hue], where hue is at most 0.5.
  """
  need_uint8(value)
  if value.shape[2] != 3 and (saturation or hue):
    raise ValueError("saturation and hue need 3 channels")
  if not 0 <= hue <= 0.5:
    raise ValueError(f"hue {hue!r} is not within 0..0.5")
  draws = tf.unstack(tf.random.stateless_uniform([4], seed))
  image = tf.cast(value, tf.float32)

  def factor(draw: tf.Tensor, width: float) -> tf.Tensor:
    low = max(0.0, 1.0 - width)
    return draw * (1.0 + width - low) + low

  if brightness:
    image = blend(tf.zeros_like(image), image, factor(draws[0], brightness))
  if contrast:
    mean = tf.reduce_mean(grey(image))
    image = blend(mean, image, factor(draws[1], contrast))
  if saturation:
    image = blend(grey(image), image, factor(draws[2], saturation))
  if hue:
    turn = draws[3] * (2.0 * hue) - hue
    image = tf.image.adjust_hue(image * (1 / 255), turn) * 255.0
  return like(image, value.dtype)
