"""RandAugment (arXiv:1909.13719) and TrivialAugment (arXiv:2103.10158)."""

from collections.abc import Callable

import tensorflow as tf

from input_pipeline.ops import color, geometry, on_picture_alone
from input_pipeline.ops import image as ops_image

_MAX = 30


@on_picture_alone
def randaugment(
  value: tf.Tensor, num: int = 2, magnitude: int = 9, *, seed
) -> tf.Tensor:
  """`num` transforms drawn uniformly, with replacement, at one strength.

  Cubuk et al., 2019.

  Args:
    value: uint8 [h, w, 1 or 3].
    num: the paper's N.
    magnitude: the paper's M, 0 (weakest) to 30, of the paper's ranges.
    seed: int64 [2].
  """
  _check(value)
  if not 0 <= magnitude <= _MAX:
    raise ValueError(f"magnitude {magnitude!r} is not within 0..{_MAX}")
  strength = magnitude / _MAX
  amounts = {name: most * strength for name, most in _RANGES.items()}
  seeds = tf.random.split(seed, 2)
  chosen = tf.random.stateless_uniform(
    [num], seeds[0], 0, len(_TRANSFORMS), tf.int32
  )
  mirrored = tf.random.stateless_uniform([num], seeds[1]) < 0.5
  image = tf.cast(value, tf.float32)
  for i in range(num):
    image = _one_of(image, chosen[i], amounts, mirrored[i])
    image.set_shape(value.shape)
  return tf.cast(image, tf.uint8)


@on_picture_alone
def trivialaugment(value: tf.Tensor, *, seed) -> tf.Tensor:
  """One uniformly drawn transform at one of 31 uniformly drawn strengths.

  Müller and Hutter, 2021, with the transforms and the "wide" ranges of the
  paper's table.

  Args:
    value: uint8 [h, w, 1 or 3].
    seed: int64 [2].
  """
  _check(value)
  seeds = tf.random.split(seed, 3)
  chosen = tf.random.stateless_uniform(
    [], seeds[0], 0, len(_TRANSFORMS), tf.int32
  )
  level = tf.random.stateless_uniform([], seeds[1], 0, _MAX + 1, tf.int32)
  mirrored = tf.random.stateless_uniform([], seeds[2]) < 0.5
  strength = tf.cast(level, tf.float32) * (1 / _MAX)
  amounts = {name: most * strength for name, most in _WIDE.items()}
  side = tf.cast(tf.shape(value)[:2], tf.float32)
  amounts["translate_y"], amounts["translate_x"] = tf.unstack(
    strength * _WIDE_PIXELS / side
  )
  image = _one_of(tf.cast(value, tf.float32), chosen, amounts, mirrored)
  image.set_shape(value.shape)
  return tf.cast(image, tf.uint8)


def _check(image: tf.Tensor) -> None:
  ops_image.need_uint8(image)
  if image.shape[2] not in (1, 3):
    raise ValueError("needs 1 or 3 channels")


def _one_of(image, chosen, amounts: dict, mirrored) -> tf.Tensor:
  """The transformed image, float, of whole numbers 0..255."""
  sign = tf.where(mirrored, -1.0, 1.0)
  image = tf.switch_case(
    chosen,
    [
      _branch(each, image, amounts.get(each.__name__[1:], 0.0), sign)
      for each in _TRANSFORMS
    ],
  )
  return tf.round(tf.clip_by_value(image, 0.0, 255.0))


def _branch(transform: Callable, image, amount, sign) -> Callable:
  return lambda: transform(image, amount, sign)


# Each takes a float image of whole numbers 0..255, an amount in its own units
# (a number or a scalar tensor) and a random sign, and returns a float image.


def _identity(image, amount, sign):
  return tf.identity(image)


def _shear_x(image, amount, sign):
  return geometry.transform(image, [[1.0, sign * amount, 0.0], [0.0, 1.0, 0.0]])


def _shear_y(image, amount, sign):
  return geometry.transform(image, [[1.0, 0.0, 0.0], [sign * amount, 1.0, 0.0]])


def _translate_x(image, amount, sign):
  """By a share of the width."""
  width = tf.cast(tf.shape(image)[1], tf.float32)
  shift = tf.round(sign * width * amount)
  return geometry.transform(image, [[1.0, 0.0, shift], [0.0, 1.0, 0.0]])


def _translate_y(image, amount, sign):
  """By a share of the height."""
  height = tf.cast(tf.shape(image)[0], tf.float32)
  shift = tf.round(sign * height * amount)
  return geometry.transform(image, [[1.0, 0.0, 0.0], [0.0, 1.0, shift]])


def _rotate(image, amount, sign):
  return geometry.rotate(image, sign * amount)


def _brightness(image, amount, sign):
  return color.blend(tf.zeros_like(image), image, 1.0 + sign * amount)


def _color(image, amount, sign):
  return color.blend(color.grey(image), image, 1.0 + sign * amount)


def _contrast(image, amount, sign):
  mean = tf.round(tf.reduce_mean(color.grey(image)))
  return color.blend(mean, image, 1.0 + sign * amount)


def _sharpness(image, amount, sign):
  """Blends with PIL's SMOOTH filter; the border is unchanged."""
  kernel = tf.constant([[1.0, 1.0, 1.0], [1.0, 5.0, 1.0], [1.0, 1.0, 1.0]])
  depth = image.shape[2]
  kernel = tf.tile((kernel * (1 / 13))[:, :, None, None], [1, 1, depth, 1])
  padded = tf.pad(image, [[1, 1], [1, 1], [0, 0]], "SYMMETRIC")[None]
  smooth = tf.nn.depthwise_conv2d(padded, kernel, [1] * 4, "VALID")[0]
  height, width = tf.unstack(tf.shape(image)[:2])
  row, column = tf.range(height)[:, None], tf.range(width)[None, :]
  border = (row == 0) | (row == height - 1) | (column == 0)
  border = (border | (column == width - 1))[..., None]
  smooth = tf.where(border, image, tf.round(smooth))
  return color.blend(smooth, image, 1.0 + sign * amount)


def _posterize(image, amount, sign):
  """Clears the lowest bits of each channel; `amount` is their number."""
  bits = tf.cast(tf.round(tf.cast(amount, tf.float32)), tf.int32)
  step = tf.gather([float(2**n) for n in range(8)], bits)
  return tf.floor(image * (1.0 / step)) * step


def _solarize(image, amount, sign):
  """Inverts values from a threshold on, which is 0 for an `amount` of 1."""
  threshold = 255.0 * (1.0 - amount)
  return tf.where(image >= threshold, 255.0 - image, image)


def _autocontrast(image, amount, sign):
  low = tf.reduce_min(image, [0, 1], keepdims=True)
  high = tf.reduce_max(image, [0, 1], keepdims=True)
  stretched = (image - low) * (255.0 / tf.maximum(high - low, 1.0))
  return tf.where(high > low, stretched, image)


def _equalize(image, amount, sign):
  """Equalizes each channel's histogram, as PIL's ImageOps.equalize does."""
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

# The amount of each transform at the largest strength.
_RANGES = {
  "shear_x": 0.3,
  "shear_y": 0.3,
  "translate_x": 150 / 331,
  "translate_y": 150 / 331,
  "rotate": 30.0,
  "brightness": 0.9,
  "color": 0.9,
  "contrast": 0.9,
  "sharpness": 0.9,
  "posterize": 4.0,
  "solarize": 1.0,
}
_WIDE = {
  "shear_x": 0.99,
  "shear_y": 0.99,
  "rotate": 135.0,
  "brightness": 0.99,
  "color": 0.99,
  "contrast": 0.99,
  "sharpness": 0.99,
  "posterize": 6.0,
  "solarize": 1.0,
}
# Translations of TrivialAugment are in pixels for images of any size.
_WIDE_PIXELS = 32.0
