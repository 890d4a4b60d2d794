"""Ops that move the pixels of an image [h, w, c] by an affine map.

They keep the image's size and its type, uint8 or float, and interpolate
bilinearly. Boxes become the upright boxes around the moved ones.
"""

import math

import tensorflow as tf

from input_pipeline.ops import Moved, on_picture
from input_pipeline.ops.image import like
from input_pipeline.ops.parts import moving


def transform(
  image: tf.Tensor, matrix: list[list], fill: float = 0.0
) -> tf.Tensor:
  """The image under an affine map about its centre.

  `matrix` is [[a, b, x], [c, d, y]]: the output at (column, row) from the
  centre is the input at (a * column + b * row + x, c * column + d * row + y).
  """
  (a, b, x), (c, d, y) = matrix
  height, width = tf.unstack(tf.cast(tf.shape(image)[:2], tf.float32))
  row, column = (height - 1.0) * 0.5, (width - 1.0) * 0.5
  x = x + column - (a * column + b * row)
  y = y + row - (c * column + d * row)
  transforms = tf.stack([a, b, x, c, d, y, 0.0, 0.0])
  moved = tf.raw_ops.ImageProjectiveTransformV3(
    images=tf.cast(image, tf.float32)[None],
    transforms=transforms[None],
    output_shape=tf.shape(image)[:2],
    fill_value=tf.cast(fill, tf.float32),
    interpolation="BILINEAR",
    fill_mode="CONSTANT",
  )[0]
  moved.set_shape(image.shape)
  return like(moved, image.dtype)


@on_picture
def rotation(
  value: tf.Tensor,
  max_degrees: float,
  min_degrees: float | None = None,
  fill: float = 0.0,
  *,
  seed,
) -> Moved:
  """Rotated about the centre, counter-clockwise, by a uniform angle.

  `min_degrees` defaults to -max_degrees. Pixels from outside are `fill`.
  """
  low = -max_degrees if min_degrees is None else min_degrees
  degrees = tf.random.stateless_uniform([], seed) * (max_degrees - low) + low
  return _moved(value, _turning(degrees), fill)


def _moved(image: tf.Tensor, matrix: list[list], fill: float) -> Moved:
  """The result of `transform`, with its map from corner to corner."""
  (a, b, x), (c, d, y) = matrix
  height, width = tf.unstack(tf.cast(tf.shape(image)[:2], tf.float32))
  row, column = height * 0.5, width * 0.5
  x = x + column - (a * column + b * row)
  y = y + row - (c * column + d * row)
  source = moving.affine(a, b, x, c, d, y)
  return Moved(transform(image, matrix, fill), source)


def rotate(
  image: tf.Tensor, degrees: tf.Tensor, fill: float = 0.0
) -> tf.Tensor:
  """Rotated about the centre, counter-clockwise."""
  return transform(image, _turning(degrees), fill)


def _turning(degrees: tf.Tensor) -> list[list]:
  angle = tf.cast(degrees, tf.float32) * (math.pi / 180)
  cos, sin = tf.cos(angle), tf.sin(angle)
  return [[cos, -sin, 0.0], [sin, cos, 0.0]]


@on_picture
def shear(
  value: tf.Tensor,
  x: float,
  y: float = 0.0,
  fill: float = 0.0,
  *,
  seed,
) -> Moved:
  """Sheared about the centre by uniform factors in [-x, x] and [-y, y].

  The output at (column, row) from the centre is the input at
  (column + a * row, row + b * column).
  """
  if x < 0 or y < 0:
    raise ValueError(f"x={x!r}, y={y!r}: both must be at least 0")
  a, b = tf.unstack(tf.random.stateless_uniform([2], seed) * 2.0 - 1.0)
  return _moved(value, [[1.0, a * x, 0.0], [b * y, 1.0, 0.0]], fill)


@on_picture
def affine(
  value: tf.Tensor,
  degrees: float = 0.0,
  translate: float = 0.0,
  scale: tuple[float, float] = (1.0, 1.0),
  shear: float = 0.0,
  fill: float = 0.0,
  *,
  seed,
) -> Moved:
  """Sheared, scaled, rotated about the centre and shifted, by uniform amounts.

  Args:
    value: the picture.
    degrees: the angle is in [-degrees, degrees].
    translate: the shifts are in [-translate, translate], as shares of the width
      and of the height.
    scale: the least and the most factor of the size; 2 doubles it.
    shear: the factors of both shears are in [-shear, shear].
    fill: the value of pixels from outside.
    seed: int64 [2].
  """
  low, high = scale
  if not 0 < low <= high:
    raise ValueError(f"scale={scale!r} is not (least, most), above 0")
  if min(degrees, translate, shear) < 0 or shear >= 1:
    raise ValueError(
      f"degrees={degrees!r}, translate={translate!r}, shear={shear!r}: none is"
      " below 0, and shear is below 1"
    )
  draws = tf.random.stateless_uniform([6], seed)
  factor = draws[0] * (high - low) + low
  angle, p, q, x, y = tf.unstack(draws[1:] * 2.0 - 1.0)
  angle = angle * (degrees * math.pi / 180)
  cos, sin = tf.cos(angle), tf.sin(angle)
  p, q = p * shear, q * shear
  # The output is factor R [[1, p], [q, 1]] input + (x, y); the matrix is of
  # its inverse.
  (a, b), (c, d) = ((cos, sin), (-sin, cos))  # R
  a, b, c, d = a + b * q, a * p + b, c + d * q, c * p + d  # R [[1, p], [q, 1]]
  size = tf.cast(tf.shape(value)[:2], tf.float32)
  x, y = x * translate * size[1], y * translate * size[0]
  over = 1.0 / (factor * (a * d - b * c))
  a, b, c, d = d * over, -b * over, -c * over, a * over
  matrix = [[a, b, -(a * x + b * y)], [c, d, -(c * x + d * y)]]
  return _moved(value, matrix, fill)


@on_picture
def landscape(value: tf.Tensor) -> Moved:
  """Turned clockwise by a quarter if it is higher than it is wide.

  Pictures of one size, some of them upright, thus fit into one batch.
  """
  height, width = tf.unstack(tf.shape(value)[:2])
  upright = height > width
  found = tf.cond(
    upright,
    lambda: tf.reverse(tf.transpose(value, [1, 0, 2]), [1]),
    lambda: value,
  )
  found.set_shape([None, None, value.shape[2]])
  bottom = tf.cast(height, tf.float32)
  turned = moving.affine(0.0, 1.0, 0.0, -1.0, 0.0, bottom)
  same = moving.affine(1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
  return Moved(found, tf.where(upright, turned, same))
