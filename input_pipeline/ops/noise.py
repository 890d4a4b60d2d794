"""Ops that remove detail from an image [h, w, c]: noise, blur, cutout."""

import math

import tensorflow as tf

from input_pipeline.ops import on_field
from input_pipeline.ops.image import like, need_uint8, uniform_place


@on_field
def noise(value: tf.Tensor, stddev: float, *, seed) -> tf.Tensor:
  """Adds Gaussian noise; `stddev` is in the units of the image."""
  normal = tf.random.stateless_normal(tf.shape(value), seed)
  noisy = tf.cast(value, tf.float32) + normal * stddev
  noisy.set_shape(value.shape)
  return like(noisy, value.dtype)


@on_field
def salt_and_pepper(
  value: tf.Tensor, share: float = 0.05, salt: float = 0.5, *, seed
) -> tf.Tensor:
  """Sets pixels to white or black, each with probability `share`; uint8.

  `salt` is the share of white among them. All channels of a pixel are set.
  """
  need_uint8(value)
  if not (0 <= share <= 1 and 0 <= salt <= 1):
    raise ValueError(f"share={share!r}, salt={salt!r}: not within 0..1")
  shape = tf.shape(value)[:2]
  # One draw decides both: below `share * salt` white, below `share` black.
  draw = tf.random.stateless_uniform(shape, seed)[..., None]
  white, black = draw < share * salt, draw < share
  noisy = tf.where(black, tf.zeros_like(value), value)
  noisy = tf.where(
    white, tf.fill(tf.shape(value), tf.cast(255, tf.uint8)), noisy
  )
  noisy.set_shape(value.shape)
  return noisy


@on_field
def blur(
  value: tf.Tensor,
  sigma: float | tuple[float, float] = (0.1, 2.0),
  p: float = 1.0,
  *,
  seed,
) -> tf.Tensor:
  """Gaussian blur with probability `p` (SimCLR, arXiv:2002.05709).

  `sigma`, in pixels, is a number, or two between which it is uniform. The
  kernel has a radius of three times the larger; the border pixels are repeated.
  """
  low, high = (sigma, sigma) if isinstance(sigma, (int, float)) else sigma
  if not 0 < low <= high:
    raise ValueError(f"sigma {sigma!r} is not positive and ascending")
  draws = tf.unstack(tf.random.stateless_uniform([2], seed))
  width = draws[0] * (high - low) + low
  radius = math.ceil(3 * high)
  offset = tf.range(-radius, radius + 1)
  kernel = tf.exp(-0.5 * tf.square(tf.cast(offset, tf.float32) / width))
  kernel = kernel / tf.reduce_sum(kernel)
  image = tf.cast(value, tf.float32)
  for axis in (0, 1):
    size = tf.shape(image)[axis]
    place = tf.range(-radius, size + radius)
    padded = tf.gather(image, tf.clip_by_value(place, 0, size - 1), axis=axis)
    window = [-1, 1, 1, 1] if axis == 0 else [1, -1, 1, 1]
    depth = padded.shape[2]
    taps = tf.tile(tf.reshape(kernel, window), [1, 1, depth, 1])
    image = tf.nn.depthwise_conv2d(padded[None], taps, [1] * 4, "VALID")[0]
  blurred = like(image, value.dtype)
  blurred.set_shape(value.shape)
  return tf.where(draws[1] < p, blurred, value)


@on_field
def cutout(value: tf.Tensor, size: int, fill: float = 0, *, seed) -> tf.Tensor:
  """Fills a square of side `size` with `fill` (DeVries and Taylor, 2017).

  Its centre is a uniform pixel, so that the border may clip the square.
  """
  if size < 1:
    raise ValueError(f"size {size!r} is not positive")
  shape = tf.shape(value)[:2]
  centre = uniform_place(shape, seed)
  start = centre - size // 2

  def inside(axis: int) -> tf.Tensor:
    place = tf.range(shape[axis])
    return (place >= start[axis]) & (place < start[axis] + size)

  square = (inside(0)[:, None] & inside(1)[None, :])[..., None]
  return tf.where(square, tf.cast(fill, value.dtype), value)
