"""Ops on images, one at a time: tensors [h, w, c].

`decode` gives uint8. Every op up to `scale`, `normalize` or `to_float` keeps
the type it is given, rounding to the nearest and clipping to 0..255 where it
is uint8; those three give float32, on which the geometric ops still work and
those on colours do not. `size` is one number for a square, or (height, width).
"""

import math

import tensorflow as tf

from input_pipeline.ops import Example, on_example, on_field

# ITU-R BT.601, the luma of PIL and torchvision.
_LUMA = (0.299, 0.587, 0.114)


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
  pair = (size, size) if isinstance(size, int) else tuple(size)
  if len(pair) != 2 or not all(isinstance(n, int) and n > 0 for n in pair):
    raise ValueError(f"size {size!r} is not a number or (height, width)")
  return pair


def like(image: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
  """A float image in another's type: rounded and clipped if that is uint8."""
  if dtype == tf.uint8:
    return tf.cast(tf.clip_by_value(tf.round(image), 0.0, 255.0), tf.uint8)
  return tf.cast(image, dtype)


def need_uint8(image: tf.Tensor) -> None:
  """Raises ValueError unless the image is uint8."""
  if image.dtype != tf.uint8:
    raise ValueError(f"needs a uint8 image, not {image.dtype.name}")


@on_field
def decode(value: tf.Tensor, channels: int | None = None) -> tf.Tensor:
  """The bytes of a JPEG, PNG, BMP or GIF (its first frame) -> uint8.

  What is an array already passes through. `channels` defaults to 3.
  """
  if value.dtype != tf.string:
    return value
  channels = 3 if channels is None else channels
  if channels not in (1, 3, 4):
    raise ValueError(f"channels {channels!r} is not 1, 3 or 4")
  image = tf.io.decode_image(value, channels, expand_animations=False)
  image.set_shape([None, None, channels])
  return image


@on_field
def resize(
  value: tf.Tensor,
  size: int | tuple[int, int],
  method: str = "bilinear",
  antialias: bool = True,
) -> tf.Tensor:
  """Resized to `size`, whatever the aspect ratio; methods of tf.image."""
  resized = tf.image.resize(value, _pair(size), method, antialias=antialias)
  return like(resized, value.dtype)


@on_field
def resize_small(
  value: tf.Tensor,
  size: int,
  method: str = "bilinear",
  antialias: bool = True,
) -> tf.Tensor:
  """Resized so that the shorter side is `size`; the aspect ratio is kept."""
  side = tf.cast(tf.shape(value)[:2], tf.float32)
  target = tf.round(side * (tf.cast(size, tf.float32) / tf.reduce_min(side)))
  target = tf.maximum(tf.cast(target, tf.int32), 1)
  resized = tf.image.resize(value, target, method, antialias=antialias)
  return like(resized, value.dtype)


def _crop(image, top, left, size: tuple[int, int]) -> tf.Tensor:
  image = tf.slice(image, [top, left, 0], [*size, -1])
  image.set_shape([*size, image.shape[2]])
  return image


def _uniform_place(room: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
  """A pair of integers, each uniform from 0 to below its own `room`."""
  draw = tf.random.stateless_uniform([2], seed)
  return tf.cast(draw * tf.cast(room, tf.float32), tf.int32)


@on_field
def central_crop(value: tf.Tensor, size: int | tuple[int, int]) -> tf.Tensor:
  """The middle of the image; an image smaller than `size` is an error."""
  size = _pair(size)
  height, width = tf.unstack(tf.shape(value)[:2])
  return _crop(value, (height - size[0]) // 2, (width - size[1]) // 2, size)


@on_field
def random_crop(
  value: tf.Tensor, size: int | tuple[int, int], pad: int = 0, *, seed
) -> tf.Tensor:
  """A crop at a uniform place, after padding each side by `pad` zeros."""
  size = _pair(size)
  if pad:
    value = tf.pad(value, [[pad, pad], [pad, pad], [0, 0]])
  room = tf.shape(value)[:2] - size + 1
  # A negative room is left for the slice to refuse, with the sizes named.
  place = _uniform_place(tf.maximum(room, 1), seed)
  return _crop(value, place[0], place[1], size)


@on_field
def random_resized_crop(
  value: tf.Tensor,
  size: int | tuple[int, int],
  area: tuple[float, float] = (0.08, 1.0),
  ratio: tuple[float, float] = (3 / 4, 4 / 3),
  method: str = "bilinear",
  *,
  seed,
) -> tf.Tensor:
  """A crop of random area and aspect ratio, resized (Szegedy et al., 2015)."""
  begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
    tf.shape(value),
    tf.zeros([0, 0, 4]),
    seed,
    min_object_covered=0.0,
    aspect_ratio_range=ratio,
    area_range=area,
    max_attempts=100,
    use_image_if_no_bounding_boxes=True,
  )
  crop = tf.slice(value, begin, extent)
  crop.set_shape([None, None, value.shape[2]])
  return resize(crop, size, method)


def transform(
  image: tf.Tensor, matrix: list[list], fill: float = 0.0
) -> tf.Tensor:
  """The image under an affine map about its centre, bilinear.

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


@on_field
def rotation(
  value: tf.Tensor,
  max_degrees: float,
  min_degrees: float | None = None,
  *,
  seed,
) -> tf.Tensor:
  """Rotated about the centre, counter-clockwise, by a uniform angle.

  `min_degrees` defaults to -max_degrees. What comes in from outside is 0.
  """
  low = -max_degrees if min_degrees is None else min_degrees
  degrees = tf.random.stateless_uniform([], seed) * (max_degrees - low) + low
  return rotate(value, degrees)


def rotate(image: tf.Tensor, degrees: tf.Tensor) -> tf.Tensor:
  """Rotated about the centre, counter-clockwise."""
  angle = tf.cast(degrees, tf.float32) * (math.pi / 180)
  cos, sin = tf.cos(angle), tf.sin(angle)
  return transform(image, [[cos, -sin, 0.0], [sin, cos, 0.0]])


@on_field
def flip(value: tf.Tensor, p: float = 0.5, *, seed) -> tf.Tensor:
  """Mirrored, left for right, with probability `p`."""
  mirrored = tf.random.stateless_uniform([], seed) < p
  return tf.where(mirrored, tf.reverse(value, [1]), value)


def grey(image: tf.Tensor) -> tf.Tensor:
  """The luma of a float image, [h, w, 1]."""
  if image.shape[2] == 1:
    return image
  return tf.reduce_sum(image * tf.constant(_LUMA), axis=2, keepdims=True)


def blend(first: tf.Tensor, second: tf.Tensor, factor) -> tf.Tensor:
  """From the first image towards the second and past it; 0..255."""
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

  Each of the first three is scaled by a factor uniform in
  [max(0, 1 - x), 1 + x]; hue turns by a uniform part of the circle in
  [-hue, hue], at most 0.5.
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


@on_field
def noise(value: tf.Tensor, stddev: float, *, seed) -> tf.Tensor:
  """Gaussian noise added, `stddev` in the image's own units."""
  normal = tf.random.stateless_normal(tf.shape(value), seed)
  noisy = tf.cast(value, tf.float32) + normal * stddev
  noisy.set_shape(value.shape)
  return like(noisy, value.dtype)


@on_field
def cutout(value: tf.Tensor, size: int, fill: float = 0, *, seed) -> tf.Tensor:
  """A square of side `size` painted over (DeVries and Taylor, 2017).

  Its centre is a uniform pixel, so that the square may stick out.
  """
  if size < 1:
    raise ValueError(f"size {size!r} is not positive")
  shape = tf.shape(value)[:2]
  centre = _uniform_place(shape, seed)
  start = centre - size // 2

  def inside(axis: int) -> tf.Tensor:
    place = tf.range(shape[axis])
    return (place >= start[axis]) & (place < start[axis] + size)

  square = (inside(0)[:, None] & inside(1)[None, :])[..., None]
  return tf.where(square, tf.cast(fill, value.dtype), value)


@on_field
def normalize(
  value: tf.Tensor,
  mean: float | tuple[float, ...],
  std: float | tuple[float, ...],
) -> tf.Tensor:
  """(x - mean) / std in float32, per channel.

  `mean` and `std` are in units of 0..1: a uint8 image is divided by 255
  first, a float image is taken as it is.
  """
  mean, std = tf.constant(mean, tf.float32), tf.constant(std, tf.float32)
  if value.dtype == tf.uint8:
    # One product, because tf.data folds two constants and eager does not.
    mean, std = mean * 255.0, std * 255.0
  return (tf.cast(value, tf.float32) - mean) * (1.0 / std)


@on_field
def scale(value: tf.Tensor, low: float = -1.0, high: float = 1.0) -> tf.Tensor:
  """uint8 0..255 -> float32 low..high."""
  need_uint8(value)
  return tf.cast(value, tf.float32) * ((high - low) / 255) + low


@on_field
def to_float(value: tf.Tensor) -> tf.Tensor:
  """uint8 0..255 -> float32 0..1; a float image becomes float32."""
  factor = 1 / 255 if value.dtype == tf.uint8 else 1.0
  return tf.cast(value, tf.float32) * factor


@on_example
def keep(example: Example, *keys: str) -> Example:
  """Only these fields."""
  missing = [key for key in keys if key not in example]
  if missing:
    raise ValueError(f"no field {missing[0]!r}; valid: {', '.join(example)}")
  return {key: example[key] for key in keys}
