"""Resampling of images with a filter, as one function: upfirdn.

Shapes: models/layers/basic.py; images are B, height, width, C.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

# The binomial filter of StyleGAN2 (arXiv:1912.04958).
BINOMIAL = (0.125, 0.375, 0.375, 0.125)


def upfirdn(
  x_BHWC: jax.Array,
  taps: Sequence[float],
  *,
  up: int = 1,
  down: int = 1,
  pad: tuple[int, int] = (0, 0),
) -> jax.Array:
  """Inserts zeros, filters and takes every `down`-th pixel, along both sides.

  Each pixel is followed by up - 1 zeros, `pad` zeros are added before and after
  the image (a negative number crops it), and the result is convolved with the
  filter without further padding. The zeros are never multiplied: each of the
  `up` phases of the output has its own share of the filter.

  Args:
    x_BHWC: the images.
    taps: the filter, of both directions. To keep the brightness their sum must
      be 1, and `up` if zeros are inserted.
    up: factor of upsampling.
    down: factor of downsampling.
    pad: zeros before and after, counted after upsampling.

  Returns:
    [B, (up H + sum(pad) - len(taps)) // down + 1, …, C].
  """
  for axis in (1, 2):
    x_BHWC = _along(x_BHWC, taps, up, down, pad, axis)
  return x_BHWC


def _along(x, taps, up, down, pad, axis):
  last = len(taps) - 1
  total = x.shape[axis] * up + sum(pad) - last
  count = -(-total // up)
  phases = []
  for phase in range(up):
    phased = jnp.zeros((), x.dtype)
    for k, tap in enumerate(taps):
      start, rest = divmod(phase + last - k - pad[0], up)
      if not rest:
        phased = phased + tap * _window(x, start, count, axis)
    shape = (*x.shape[:axis], count, *x.shape[axis + 1 :])
    phases.append(jnp.broadcast_to(phased, shape))
  if up > 1:
    y = jnp.stack(phases, axis + 1)
    shape = (*x.shape[:axis], count * up, *x.shape[axis + 1 :])
    y = y.reshape(shape)
  else:
    y = phases[0]
  return jax.lax.slice_in_dim(y, 0, total, down, axis)


def _window(x, start: int, count: int, axis: int):
  """Elements start…start + count - 1 of an axis, with zeros beyond its ends."""
  width = [(0, 0, 0)] * x.ndim
  width[axis] = (-start, start + count - x.shape[axis], 0)
  return jax.lax.pad(x, jnp.zeros((), x.dtype), width)


def doubled(x_BHWC: jax.Array) -> jax.Array:
  """Returns [B, 2 H, 2 W, C], interpolated with the binomial filter."""
  taps = [2 * tap for tap in BINOMIAL]
  return upfirdn(x_BHWC, taps, up=2, pad=(2, 1))


def halved(x_BHWC: jax.Array) -> jax.Array:
  """Returns [B, H / 2, W / 2, C], filtered with the binomial filter."""
  return upfirdn(x_BHWC, BINOMIAL, down=2, pad=(1, 1))


def transposed_convolution(
  x_BHWI: jax.Array, kernel_KKIO: jax.Array
) -> jax.Array:
  """The whole convolution of x, with a zero after each pixel, with a kernel.

  [B, H, W, I] -> [B, 2 H + K - 2, 2 W + K - 2, O] for a kernel of size K.
  The kernel is correlated, as in all convolutions of networks.
  """
  whole = kernel_KKIO.shape[0] - 1
  return jax.lax.conv_general_dilated(
    x_BHWI,
    kernel_KKIO,
    (1, 1),
    ((whole, whole),) * 2,
    lhs_dilation=(2, 2),
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )
