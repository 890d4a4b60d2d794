"""Ops on the colours of an image [h, w, c]; from uint8 to uint8."""

import tensorflow as tf

from input_pipeline.ops import on_field
from input_pipeline.ops.image import like, need_uint8

# The luma of ITU-R BT.601, as in PIL and torchvision.
_LUMA = (0.299, 0.587, 0.114)
# Folded into the seed of an op that is applied at random.
_CHANCE = 7


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
  p: float = 1.0,
  *,
  seed,
) -> tf.Tensor:
  """Random changes of colour, in the order of the arguments; uint8.

  Brightness, contrast and saturation are scaled by factors uniform in
  [max(0, 1 - x), 1 + x]. Hue is shifted by a share of the circle uniform in
  [-hue, hue], where hue is at most 0.5. With probability 1 - p, the image stays
  as it is.
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
  return chosen(p, like(image, value.dtype), value, seed)


def chosen(p: float, changed: tf.Tensor, value: tf.Tensor, seed) -> tf.Tensor:
  """`changed` with probability p, else `value`; ValueError for another p."""
  if not 0 <= p <= 1:
    raise ValueError(f"p={p!r} is not a probability from 0 to 1")
  if p == 1:
    return changed
  own = tf.random.experimental.stateless_fold_in(seed, _CHANCE)
  return tf.where(tf.random.stateless_uniform([], own) < p, changed, value)


@on_field
def grayscale(value: tf.Tensor, p: float = 1.0, *, seed) -> tf.Tensor:
  """The luma in all channels, with probability `p`; uint8 or float."""
  luma = tf.broadcast_to(grey(tf.cast(value, tf.float32)), tf.shape(value))
  luma.set_shape(value.shape)
  return chosen(p, like(luma, value.dtype), value, seed)


@on_field
def solarize(
  value: tf.Tensor, threshold: int = 128, p: float = 1.0, *, seed
) -> tf.Tensor:
  """Values from `threshold` on are inverted, with probability `p`; uint8."""
  need_uint8(value)
  if not 0 <= threshold <= 256:
    raise ValueError(f"threshold={threshold!r} is not within 0..256")
  bright = tf.cast(value, tf.int32) >= threshold
  return chosen(p, tf.where(bright, 255 - value, value), value, seed)


@on_field
def photometric_distortion(
  value: tf.Tensor,
  brightness: float = 32.0,
  contrast: float = 0.5,
  saturation: float = 0.5,
  hue: float = 0.05,
  p: float = 0.5,
  *,
  seed,
) -> tf.Tensor:
  """Brightness, contrast, saturation and hue, each with probability `p`; uint8.

  The distortion of the single-shot detector (arXiv:1512.02325, after
  arXiv:1312.5402): contrast comes before saturation and hue, or with
  probability 1/2 after them.

  Args:
    value: uint8 [h, w, 3].
    brightness: a number in [-brightness, brightness] is added.
    contrast: values are multiplied by a factor in [1 - contrast, 1 + contrast].
    saturation: as contrast, of the saturation.
    hue: the shift is a share of the circle in [-hue, hue], at most 0.5.
    p: the probability of each.
    seed: int64 [2].
  """
  need_uint8(value)
  if value.shape[2] != 3:
    raise ValueError("saturation and hue need 3 channels")
  if not 0 <= hue <= 0.5 or min(contrast, saturation) < 0:
    raise ValueError(
      f"hue={hue!r} is not within 0..0.5, or contrast={contrast!r} or"
      f" saturation={saturation!r} is below 0"
    )
  amounts = tf.unstack(tf.random.stateless_uniform([9], seed))
  chances, order = amounts[4:8], amounts[8]

  def drawn(i: int, width: float, still: float) -> tf.Tensor:
    """A number around `still`, or `still` itself with probability 1 - p."""
    shift = (amounts[i] * 2.0 - 1.0) * width
    return tf.where(chances[i] < p, still + shift, still)

  image = tf.cast(value, tf.float32) + drawn(0, brightness, 0.0)
  factor = tf.maximum(drawn(1, contrast, 1.0), 0.0)
  image = image * tf.where(order < 0.5, factor, 1.0)
  # Hue and saturation are of colours within 0 to 1.
  image = tf.clip_by_value(image, 0.0, 255.0) * (1 / 255)
  more = tf.maximum(drawn(2, saturation, 1.0), 0.0)
  image = tf.image.adjust_saturation(image, more)
  image = tf.image.adjust_hue(image, drawn(3, hue, 0.0)) * 255.0
  return like(image * tf.where(order < 0.5, 1.0, factor), value.dtype)
