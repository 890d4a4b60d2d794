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


def convolution(
  x_BHWI: jax.Array,
  kernel_KKIO: jax.Array,
  *,
  stride: int = 1,
  pad: int = 0,
  products: bool = False,
) -> jax.Array:
  """A convolution with equal padding on all sides.

  Args:
    x_BHWI: the inputs.
    kernel_KKIO: in their dtype; it is correlated, as in all networks.
    stride: of the outputs.
    pad: zeros on each side.
    products: whether each output is the product of a patch of the inputs and
      the kernel. On a CPU the second derivatives of XLA's convolutions take
      about ten times as long as those of products; the patches take K^2 times
      the memory of the inputs.
  """
  K, _, inputs, outputs = kernel_KKIO.shape
  if K > 1 and not products:
    return jax.lax.conv_general_dilated(
      x_BHWI,
      kernel_KKIO,
      (stride, stride),
      ((pad, pad),) * 2,
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
  x = jnp.pad(x_BHWI, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
  B, H, W, _ = x.shape
  height, width = ((size - K) // stride + 1 for size in (H, W))
  parts = [
    jax.lax.slice(
      x,
      (0, i, j, 0),
      (B, i + (height - 1) * stride + 1, j + (width - 1) * stride + 1, inputs),
      (1, stride, stride, 1),
    )
    for i in range(K)
    for j in range(K)
  ]
  patches = jnp.concatenate(parts, axis=-1).reshape(-1, K * K * inputs)
  y = patches @ kernel_KKIO.reshape(K * K * inputs, outputs)
  return y.reshape(B, height, width, outputs)


def transposed_convolution(
  x_BHWI: jax.Array, kernel_KKIO: jax.Array, products: bool = False
) -> jax.Array:
  """The whole convolution of x, with a zero after each pixel, with a kernel.

  [B, H, W, I] -> [B, 2 H + K - 2, 2 W + K - 2, O] for a kernel of size K.

  Args:
    x_BHWI: the inputs.
    kernel_KKIO: in their dtype; it is correlated, as in all networks.
    products: whether the products of each pixel with the whole kernel are
      computed and added where they belong; see `convolution`.
  """
  B, H, W, inputs = x_BHWI.shape
  K, _, _, outputs = kernel_KKIO.shape
  if not products:
    return jax.lax.conv_general_dilated(
      x_BHWI,
      kernel_KKIO,
      (1, 1),
      ((K - 1, K - 1),) * 2,
      lhs_dilation=(2, 2),
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
  kernel = kernel_KKIO.transpose(2, 0, 1, 3).reshape(inputs, -1)
  y = (x_BHWI.reshape(-1, inputs) @ kernel).reshape(B, H, W, K, K, outputs)
  # Row k of the kernel reaches the row 2 h + K - 1 - k of the outputs.
  return _spread(_spread(y, K, 1), K, 2)


def _spread(y, K: int, axis: int):
  """Adds the products of each row of a kernel, on axis 3, along an axis."""
  count = y.shape[axis] + (K - 1) // 2
  phases: list = [0, 0]
  for k in range(K):
    row = jax.lax.index_in_dim(y, k, 3, keepdims=False)
    later, phase = divmod(K - 1 - k, 2)
    width = [(0, 0)] * row.ndim
    width[axis] = (later, count - y.shape[axis] - later)
    phases[phase] = phases[phase] + jnp.pad(row, width)
  both = jnp.stack(phases, axis + 1)
  shape = (*both.shape[:axis], 2 * count, *both.shape[axis + 2 :])
  size = 2 * y.shape[axis] + K - 2
  return jax.lax.slice_in_dim(both.reshape(shape), 0, size, axis=axis)
