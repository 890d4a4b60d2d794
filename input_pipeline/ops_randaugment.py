"""RandAugment (Cubuk et al., 2019, arXiv:1909.13719)."""

from collections.abc import Callable

import tensorflow as tf

from input_pipeline import ops_image
from input_pipeline.ops import on_field

_MAX = 30


@on_field
def randaugment(
  value: tf.Tensor, num: int = 2, magnitude: int = 9, *, seed
) -> tf.Tensor:
  """`num` transforms drawn uniformly, with replacement, at one strength.

  Args:
    value: uint8 [h, w, 3].
    num: the paper's N.
    magnitude: the paper's M, 0 (weakest) to 30; the paper's ranges.
    seed: int64 [2].
  """
  ops_image.need_uint8(value)
  if value.shape[2] != 3:
    raise ValueError("needs 3 channels")
  if not 0 <= magnitude <= _MAX:
    raise ValueError(f"magnitude {magnitude!r} is not within 0..{_MAX}")
  strength = magnitude / _MAX
  seeds = tf.random.split(seed, 2)
  chosen = tf.random.stateless_uniform(
    [num], seeds[0], 0, len(_TRANSFORMS), tf.int32
  )
  mirrored = tf.random.stateless_uniform([num], seeds[1]) < 0.5
  image = tf.cast(value, tf.float32)
  for i in range(num):
    sign = tf.where(mirrored[i], -1.0, 1.0)
    image = tf.switch_case(
      chosen[i],
      [_branch(each, image, strength, sign) for each in _TRANSFORMS],
    )
    image = tf.round(tf.clip_by_value(image, 0.0, 255.0))
    image.set_shape(value.shape)
  return tf.cast(image, tf.uint8)


def _branch(transform: Callable, image, strength: float, sign) -> Callable:
  return lambda: transform(image, strength, sign)


# Each takes a float image of whole numbers 0..255, the strength 0..1 and a
# random sign, and gives a float image.


def _identity(image, strength, sign):
  return tf.identity(image)


def _shear_x(image, strength, sign):
  return ops_image.transform(
    image, [[1.0, sign * (0.3 * strength), 0.0], [0.0, 1.0, 0.0]]
  )


def _shear_y(image, strength, sign):
  return ops_image.transform(
    image, [[1.0, 0.0, 0.0], [sign * (0.3 * strength), 1.0, 0.0]]
  )


def _translate_x(image, strength, sign):
  width = tf.cast(tf.shape(image)[1], tf.float32)
  shift = tf.round(sign * width * (150 / 331 * strength))
  return ops_image.transform(image, [[1.0, 0.0, shift], [0.0, 1.0, 0.0]])


def _translate_y(image, strength, sign):
  height = tf.cast(tf.shape(image)[0], tf.float32)
  shift = tf.round(sign * height * (150 / 331 * strength))
  return ops_image.transform(image, [[1.0, 0.0, 0.0], [0.0, 1.0, shift]])


def _rotate(image, strength, sign):
  return ops_image.rotate(image, sign * (30.0 * strength))


def _brightness(image, strength, sign):
  factor = 1.0 + sign * (0.9 * strength)
  return ops_image.blend(tf.zeros_like(image), image, factor)


def _color(image, strength, sign):
  factor = 1.0 + sign * (0.9 * strength)
  return ops_image.blend(ops_image.grey(image), image, factor)


def _contrast(image, strength, sign):
  mean = tf.round(tf.reduce_mean(ops_image.grey(image)))
  return ops_image.blend(mean, image, 1.0 + sign * (0.9 * strength))


def _sharpness(image, strength, sign):
  """Against PIL's SMOOTH filter; the border stays as it is."""
  kernel = tf.constant([[1.0, 1.0, 1.0], [1.0, 5.0, 1.0], [1.0, 1.0, 1.0]])
  kernel = tf.tile((kernel * (1 / 13))[:, :, None, None], [1, 1, 3, 1])
  padded = tf.pad(image, [[1, 1], [1, 1], [0, 0]], "SYMMETRIC")[None]
  smooth = tf.nn.depthwise_conv2d(padded, kernel, [1] * 4, "VALID")[0]
  height, width = tf.unstack(tf.shape(image)[:2])
  row, column = tf.range(height)[:, None], tf.range(width)[None, :]
  border = (row == 0) | (row == height - 1) | (column == 0)
  border = (border | (column == width - 1))[..., None]
  smooth = tf.where(border, image, tf.round(smooth))
  return ops_image.blend(smooth, image, 1.0 + sign * (0.9 * strength))


def _posterize(image, strength, sign):
  """Keeps 8 bits of each channel at the weakest, 4 at the strongest."""
  step = 2.0 ** round(4 * strength)
  return tf.floor(image * (1 / step)) * step


def _solarize(image, strength, sign):
  threshold = 255.0 * (1.0 - strength)
  return tf.where(image >= threshold, 255.0 - image, image)


def _autocontrast(image, strength, sign):
  low = tf.reduce_min(image, [0, 1], keepdims=True)
  high = tf.reduce_max(image, [0, 1], keepdims=True)
  stretched = (image - low) * (255.0 / tf.maximum(high - low, 1.0))
  return tf.where(high > low, stretched, image)


def _equalize(image, strength, sign):
  """A flat histogram for each channel, as PIL's ImageOps.equalize does it."""
  channels = []
  for channel in tf.unstack(tf.cast(image, tf.int32), axis=2):
    counts = tf.math.bincount(tf.reshape(channel, [-1]), minlength=256)
    last = tf.boolean_mask(counts, counts > 0)[-1]
    step = (tf.reduce_sum(counts) - last) // 255
    before = tf.cumsum(counts, exclusive=True)
    table = (before + step // 2) // tf.maximum(step, 1)
    table = tf.where(step > 0, tf.minimum(table, 255), tf.range(256))
    channels.append(tf.gather(table, channel))
  return tf.cast(tf.stack(channels, axis=2), tf.float32)


_TRANSFORMS = (
  _identity,
  _shear_x,
  _shear_y,
  _translate_x,
  _translate_y,
  _rotate,
  _brightness,
  _color,
  _contrast,
  _sharpness,
  _posterize,
  _solarize,
  _autocontrast,
  _equalize,
)
