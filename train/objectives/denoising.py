"""Noise of a known level, and the quality of images: PSNR and SSIM."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

# Images are in [-1, 1], and levels in 255ths of this range.
LEVELS = 127.5
# Of a picture in [-1, 1].
RANGE = 2.0


def noisy(
  image_BHWC: jax.Array, level_B: jax.Array, noise_BHWC: jax.Array
) -> jax.Array:
  """Images with Gaussian noise of standard deviation level_B / 127.5."""
  return image_BHWC + (level_B / LEVELS)[:, None, None, None] * noise_BHWC


def noise_of(
  rng: jax.Array, index_B: jax.Array, shape: tuple[int, ...]
) -> jax.Array:
  """Normal noise [B, *shape] that depends on (rng, index of the example)."""
  keys_B = jax.vmap(lambda index: jax.random.fold_in(rng, index))(index_B)
  return jax.vmap(lambda key: jax.random.normal(key, shape))(keys_B)


def psnr(clean: np.ndarray, found: np.ndarray, span: float = RANGE) -> float:
  """The peak signal-to-noise ratio 10 log10(span^2 / mse), in dB.

  Returns infinity for equal images.
  """
  error = np.asarray(clean, np.float64) - np.asarray(found, np.float64)
  mse = float(np.mean(error**2))
  return float("inf") if mse == 0 else float(10 * np.log10(span**2 / mse))


def ssim(
  first_HWC: np.ndarray,
  second_HWC: np.ndarray,
  span: float = RANGE,
  *,
  gaussian: bool = True,
) -> float:
  """The structural similarity of two images, a mean over pixels and channels.

  Wang et al., IEEE Transactions on Image Processing 13 (2004): windows of
  11 x 11 pixels, weighted by a Gaussian of standard deviation 1.5, and
  constants (0.01 span)^2 and (0.03 span)^2. Only windows within the image
  count. Without `gaussian`, windows of 7 x 7 equal weights, and unbiased
  variances.

  Args:
    first_HWC: an image.
    second_HWC: another one of its shape.
    span: the greatest value less the least one that an image can have.
    gaussian: the kind of windows.

  Raises:
    ValueError: the shapes differ, or are smaller than a window.
  """
  x, y = (np.asarray(each, np.float64) for each in (first_HWC, second_HWC))
  place = np.arange(-5, 6) if gaussian else np.arange(-3, 4)
  if x.shape != y.shape or min(x.shape[:2]) < len(place):
    raise ValueError(
      f"images of {x.shape} and {y.shape}: SSIM needs equal shapes, of at"
      f" least {len(place)} x {len(place)} pixels"
    )
  weights = np.exp(-0.5 * (place / 1.5) ** 2) if gaussian else np.ones(7)
  weights /= weights.sum()

  def averaged(values):
    for axis in (0, 1):
      windows = np.lib.stride_tricks.sliding_window_view(
        values, len(weights), axis
      )
      values = windows @ weights
    return values

  unbiased = 1.0 if gaussian else 49 / 48
  mean_x, mean_y = averaged(x), averaged(y)
  var_x = unbiased * (averaged(x * x) - mean_x**2)
  var_y = unbiased * (averaged(y * y) - mean_y**2)
  covariance = unbiased * (averaged(x * y) - mean_x * mean_y)
  a, b = (0.01 * span) ** 2, (0.03 * span) ** 2
  similar = (2 * mean_x * mean_y + a) * (2 * covariance + b)
  similar /= (mean_x**2 + mean_y**2 + a) * (var_x + var_y + b)
  return float(similar.mean())


def tiled(
  function: Callable[[np.ndarray], np.ndarray],
  image_HWC: np.ndarray,
  tile: int,
  margin: int,
  multiple: int = 1,
) -> np.ndarray:
  """`function` on overlapping square tiles of a large image, [H, W, C'].

  Of each tile, the pixels that are at least `margin` away from its inner edges
  are kept. The result equals that on the whole image if no output depends on
  pixels further away than `margin`.

  Args:
    function: image_BHWC of one image -> image_BHWC of the same size; it is
      called with few different shapes.
    image_HWC: the image.
    tile: height and width of a tile, above 2 * margin.
    margin: in pixels.
    multiple: tiles begin at multiples of this number of pixels, for networks
      that halve the image.

  Raises:
    ValueError: no pixels of a tile remain.
  """
  if tile - 2 * margin < multiple:
    raise ValueError(
      f"tile={tile} leaves no {multiple} pixels between margins of {margin}"
    )
  rows, columns = (
    _cuts(size, tile, margin, multiple) for size in image_HWC.shape[:2]
  )
  found = None
  for top, bottom, low, high in rows:
    for left, right, near, far in columns:
      part = np.asarray(function(image_HWC[None, top:bottom, left:right]))[0]
      if found is None:
        found = np.zeros((*image_HWC.shape[:2], part.shape[2]), part.dtype)
      kept = part[low - top : high - top, near - left : far - left]
      found[low:high, near:far] = kept
  return found


def _cuts(size: int, tile: int, margin: int, multiple: int):
  """[(begin, end, first kept, end of the kept)] along one axis."""
  if size <= tile:
    return [(0, size, 0, size)]
  step = (tile - 2 * margin) // multiple * multiple
  last = (size - tile) // multiple * multiple
  begins = [*range(0, last, step), last]
  ends = [begin + tile for begin in begins[:-1]] + [size]
  # Where two tiles meet, the later one begins to be kept.
  edges = [0, *(begin + margin for begin in begins[1:]), size]
  return list(zip(begins, ends, edges[:-1], edges[1:], strict=True))


def uniform_levels(
  rng: jax.Array, count: int, low: float, high: float
) -> jax.Array:
  """`count` levels of noise, uniform from low to high; float32 [B]."""
  if low == high:
    return jnp.full((count,), low, jnp.float32)
  return jax.random.uniform(rng, (count,), minval=low, maxval=high)
