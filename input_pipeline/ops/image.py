"""Ops that decode, resize, crop, mirror and scale images [h, w, c].

`decode` returns uint8, and `scale`, `normalize` and `to_float` return float32.
The other ops keep the type; uint8 results are rounded to the nearest integer
and clipped to 0..255. Geometric ops work on both types, ops on colours on uint8
only. `size` is a number for a square, or (height, width).
"""

import numpy as np
import tensorflow as tf

from input_pipeline.ops import (
  Example,
  Moved,
  on_example,
  on_field,
  on_picture,
)
from input_pipeline.ops.parts import moving
from input_pipeline.reading import exif, pictures


def pair(size: int | tuple[int, int]) -> tuple[int, int]:
  """(height, width) of an argument `size`; ValueError if it is neither."""
  sides = (size, size) if isinstance(size, int) else tuple(size)
  if len(sides) != 2 or not all(isinstance(n, int) and n > 0 for n in sides):
    raise ValueError(f"size {size!r} is not a number or (height, width)")
  return sides


def like(image: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
  """A float image cast to `dtype`; rounded and clipped for uint8."""
  if image.dtype == dtype:
    return image  # as after resizing to the nearest pixels
  if dtype == tf.uint8:
    return tf.cast(tf.clip_by_value(tf.round(image), 0.0, 255.0), tf.uint8)
  return tf.cast(image, dtype)


def need_uint8(image: tf.Tensor) -> None:
  """Raises ValueError unless the image is uint8."""
  if image.dtype != tf.uint8:
    raise ValueError(f"needs a uint8 image, not {image.dtype.name}")


# The first bytes of what Pillow decodes: TIFF, AVIF, WebP, GIF and BMP; \C is
# any byte. TensorFlow knows no palettes of BMP, no transparent GIF, and of both
# no other than three channels.
_OF_PILLOW = r"(II\*\x00|MM\x00\*|\C{4}ftyp|RIFF\C{4}WEBP|GIF8|BM)\C*"
# A PNG of less than eight bits, to which TensorFlow gives a wrong alpha.
_FEW_BITS = r"\CPNG\C{20}[\x01\x02\x04]\C*"
# What files with EXIF data hold; most have none, and are not parsed in Python.
_WITH_EXIF = r"\C*(Exif\x00\x00|eXIf)\C*"


@on_field
def decode(value: tf.Tensor, channels: int | None = None) -> tf.Tensor:
  """The bytes of an image (the first frame or page) -> uint8, upright.

  TensorFlow decodes JPEG and PNG, and Pillow GIF, BMP, WebP, TIFF and AVIF. The
  EXIF orientation is applied, 16 bits become 8, and transparency is left out
  unless `channels`, 3 by default, is 4. An array is returned unchanged.
  """
  if value.dtype != tf.string:
    return value
  channels = 3 if channels is None else channels
  if channels not in (1, 3, 4):
    raise ValueError(f"channels {channels!r} is not 1, 3 or 4")

  def of_pillow() -> tf.Tensor:
    def decoded(data: bytes | np.ndarray) -> np.ndarray:
      return pictures.decode(_bytes(data), channels)

    return tf.numpy_function(decoded, [value], tf.uint8, stateful=False)

  def of_tensorflow() -> tf.Tensor:
    image = tf.io.decode_image(value, channels, expand_animations=False)
    return tf.cond(
      tf.strings.regex_full_match(value, _WITH_EXIF),
      lambda: tf.numpy_function(_upright, [image, value], tf.uint8, False),
      lambda: image,
    )

  image = tf.cond(_is_of_pillow(value, channels), of_pillow, of_tensorflow)
  image.set_shape([None, None, channels])
  return image


def _is_of_pillow(value: tf.Tensor, channels: int) -> tf.Tensor:
  """Whether Pillow decodes the bytes, and not TensorFlow."""
  matches = tf.strings.regex_full_match
  head = tf.strings.substr(value, 0, 32)
  found = matches(head, _OF_PILLOW)
  jpeg = tf.strings.substr(value, 0, 2) == b"\xff\xd8"
  if channels == 4:
    found |= jpeg | matches(head, _FEW_BITS)
  if channels == 1:  # TensorFlow does not turn four colours into grey.
    found |= tf.cond(
      jpeg,
      lambda: tf.io.extract_jpeg_shape(value)[2] == 4,
      lambda: tf.constant(False),
    )
  return found


def _upright(image: np.ndarray, data: bytes | np.ndarray) -> np.ndarray:
  turned = exif.upright(image, exif.orientation(_bytes(data)))
  return np.ascontiguousarray(turned)


def _bytes(data: bytes | np.ndarray) -> bytes:
  """A string as numpy_function passes it: an array of objects if eager."""
  return data if isinstance(data, bytes) else data.item()


@on_picture
def resize(
  value: tf.Tensor,
  size: int | tuple[int, int],
  method: str = "bilinear",
  antialias: bool = True,
) -> Moved:
  """Resized to `size`, ignoring the aspect ratio; a method of tf.image."""
  return _resized(value, pair(size), method, antialias)


def _resized(value: tf.Tensor, size, method: str, antialias: bool) -> Moved:
  resized = tf.image.resize(value, size, method, antialias=antialias)
  source = moving.scaling(tf.shape(value)[:2], size)
  return Moved(like(resized, value.dtype), source)


@on_picture
def resize_small(
  value: tf.Tensor,
  size: int,
  method: str = "bilinear",
  antialias: bool = True,
) -> Moved:
  """Resized to a shorter side of `size`, keeping the aspect ratio."""
  side = tf.cast(tf.shape(value)[:2], tf.float32)
  target = tf.round(side * (tf.cast(size, tf.float32) / tf.reduce_min(side)))
  target = tf.maximum(tf.cast(target, tf.int32), 1)
  return _resized(value, target, method, antialias)


@on_picture
def letterbox(
  value: tf.Tensor,
  size: int | tuple[int, int],
  fill: float = 0.0,
  method: str = "bilinear",
  antialias: bool = True,
) -> Moved:
  """Resized to fit into `size`, keeping the aspect ratio, amid `fill`."""
  size = pair(size)
  side = tf.cast(tf.shape(value)[:2], tf.float32)
  ratio = tf.reduce_min(tf.cast(size, tf.float32) / side)
  inner = tf.clip_by_value(tf.cast(tf.round(side * ratio), tf.int32), 1, size)
  resized, within = _resized(value, inner, method, antialias)
  before = (size - inner) // 2
  room = tf.stack([before, size - inner - before], axis=1)
  padded = tf.pad(
    resized,
    tf.concat([room, [[0, 0]]], axis=0),
    constant_values=tf.cast(fill, value.dtype),
  )
  padded.set_shape([*size, value.shape[2]])
  around = moving.translation(-before[1], -before[0])
  return Moved(padded, moving.composed(within, around))


def _crop(image, top, left, size: tuple[int, int], pad: int = 0) -> Moved:
  image = tf.slice(image, [top, left, 0], [*size, -1])
  image.set_shape([*size, image.shape[2]])
  return Moved(image, moving.translation(left - pad, top - pad))


def uniform_place(room: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
  """A pair of integers, each uniform in 0 … its `room` - 1."""
  draw = tf.random.stateless_uniform([2], seed)
  return tf.cast(draw * tf.cast(room, tf.float32), tf.int32)


@on_picture
def central_crop(value: tf.Tensor, size: int | tuple[int, int]) -> Moved:
  """The centre of the image; an image smaller than `size` is an error."""
  size = pair(size)
  height, width = tf.unstack(tf.shape(value)[:2])
  return _crop(value, (height - size[0]) // 2, (width - size[1]) // 2, size)


@on_picture
def random_crop(
  value: tf.Tensor, size: int | tuple[int, int], pad: int = 0, *, seed
) -> Moved:
  """A crop at a uniform position, after padding each side by `pad` zeros."""
  size = pair(size)
  if pad:
    value = tf.pad(value, [[pad, pad], [pad, pad], [0, 0]])
  room = tf.shape(value)[:2] - size + 1
  # For a negative room, the slice raises an error that names the sizes.
  place = uniform_place(tf.maximum(room, 1), seed)
  return _crop(value, place[0], place[1], size, pad)


@on_picture
def random_resized_crop(
  value: tf.Tensor,
  size: int | tuple[int, int],
  area: tuple[float, float] = (0.08, 1.0),
  ratio: tuple[float, float] = (3 / 4, 4 / 3),
  method: str = "bilinear",
  *,
  seed,
) -> Moved:
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
  return resized_crop(value, begin, extent, pair(size), method)


def resized_crop(
  value: tf.Tensor, begin, extent, size: tuple[int, int], method: str
) -> Moved:
  """The window of a picture from `begin` on, [3] each, resized to `size`."""
  crop = tf.slice(value, begin, extent)
  crop.set_shape([None, None, value.shape[2]])
  value, within = _resized(crop, size, method, antialias=True)
  window = moving.translation(begin[1], begin[0])
  return Moved(value, moving.composed(window, within))


@on_picture
def flip(
  value: tf.Tensor, p: float = 0.5, vertical: bool = False, *, seed
) -> Moved:
  """Mirrored, left to right or top to bottom, with probability `p`."""
  mirrored = tf.random.stateless_uniform([], seed) < p
  axis = 0 if vertical else 1
  flipped = tf.where(mirrored, tf.reverse(value, [axis]), value)
  sign = tf.where(mirrored, -1.0, 1.0)
  end = tf.where(mirrored, tf.cast(tf.shape(value)[axis], tf.float32), 0.0)
  if vertical:
    return Moved(flipped, moving.affine(1.0, 0.0, 0.0, 0.0, sign, end))
  return Moved(flipped, moving.affine(sign, 0.0, end, 0.0, 1.0, 0.0))


@on_field
def normalize(
  value: tf.Tensor,
  mean: float | tuple[float, ...],
  std: float | tuple[float, ...],
) -> tf.Tensor:
  """(x - mean) / std in float32, per channel.

  `mean` and `std` are in units of 0..1: a uint8 image is divided by 255
  first, a float image is not.
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
  """The example with only the fields `keys`."""
  missing = [key for key in keys if key not in example]
  if missing:
    raise ValueError(f"no field {missing[0]!r}; valid: {', '.join(example)}")
  return {key: example[key] for key in keys}
