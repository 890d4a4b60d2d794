"""Layers of equal learning rates, and convolutions modulated by a style.

Parameters are drawn from normal(1) and scaled at each use, so that all of them
move by similar shares of their size (Karras et al., 2018, arXiv:1710.10196,
section 4.1). Shapes: models/layers/basic.py; W is the size of a style.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from models.layers import resampling
from models.layers.basic import along_last

_NORMAL = nnx.initializers.normal(1.0)


class EqualizedDense(nnx.Module):
  """y = x W rate / sqrt(I) + rate b; [..., I] -> [..., O].

  Attributes:
    kernel: [I, O], drawn from normal(1 / rate).
    bias: [O], `start` in the beginning; None without one.
  """

  def __init__(
    self, inputs, outputs, *, rate=1.0, start=0.0, bias=True, dtype,
    param_dtype, rngs,
  ):  # fmt: skip
    self.rate, self.dtype = rate, dtype
    self.scale = rate / math.sqrt(inputs)
    kernel_IO = _NORMAL(rngs.params(), (inputs, outputs), param_dtype)
    self.kernel = nnx.Param(kernel_IO / rate)
    self.bias = nnx.data(
      nnx.Param(jnp.full((outputs,), start, param_dtype)) if bias else None
    )

  def __call__(self, x):
    """Returns the product and the bias."""
    y = x.astype(self.dtype) @ (self.kernel[...] * self.scale).astype(
      self.dtype
    )
    if self.bias is None:
      return y
    bias = (self.bias[...] * self.rate).astype(self.dtype)
    return y + along_last(bias, y.ndim)


class EqualizedConv(nnx.Module):
  """A convolution of stride 1, or 2 after the binomial filter.

  [B, H, W, I] -> [B, H, W, O], or half the height and width.

  Attributes:
    kernel: [size, size, I, O], drawn from normal(1).
    bias: [O], zeros; None without one.
  """

  def __init__(
    self, inputs, outputs, size, *, down=False, bias=True, products=False,
    dtype, param_dtype, rngs,
  ):  # fmt: skip
    self.size, self.down, self.dtype = size, down, dtype
    self.products = products
    self.scale = 1 / math.sqrt(size * size * inputs)
    shape = (size, size, inputs, outputs)
    self.kernel = nnx.Param(_NORMAL(rngs.params(), shape, param_dtype))
    self.bias = nnx.data(
      nnx.Param(jnp.zeros((outputs,), param_dtype)) if bias else None
    )

  def __call__(self, x_BHWI):
    """Returns the convolution."""
    kernel = (self.kernel[...] * self.scale).astype(self.dtype)
    x, pad, stride = x_BHWI.astype(self.dtype), self.size // 2, 1
    if self.down and self.size == 1:
      x = resampling.halved(x)
    elif self.down:
      x = resampling.upfirdn(x, resampling.BINOMIAL, pad=(pad + 1, pad + 1))
      pad, stride = 0, 2
    y_BHWO = resampling.convolution(
      x, kernel, stride=stride, pad=pad, products=self.products
    )
    if self.bias is not None:
      y_BHWO += along_last(self.bias[...].astype(self.dtype), 4)
    return y_BHWO


class ModulatedConv(nnx.Module):
  """A convolution whose input channels are scaled by a style.

  With `demodulate`, the outputs are then divided by the norms of the scaled
  kernels (arXiv:1912.04958, section 2.2). With `up`, a zero follows each pixel,
  and the binomial filter follows the convolution.

  Attributes:
    kernel: [size, size, I, O], drawn from normal(1).
    affine: style w_BW -> scales [B, I], ones in the beginning.
  """

  def __init__(
    self, inputs, outputs, size, *, styles, demodulate=True, up=False,
    products=False, dtype, param_dtype, rngs,
  ):  # fmt: skip
    self.size, self.dtype = size, dtype
    self.up, self.demodulate, self.products = up, demodulate, products
    self.scale = 1 / math.sqrt(size * size * inputs)
    shape = (size, size, inputs, outputs)
    self.kernel = nnx.Param(_NORMAL(rngs.params(), shape, param_dtype))
    self.affine = EqualizedDense(
      styles,
      inputs,
      start=1.0,
      dtype=jnp.float32,
      param_dtype=param_dtype,
      rngs=rngs,
    )

  def __call__(self, x_BHWI, w_BW):
    """Returns [B, H, W, O], or twice the height and width with `up`."""
    kernel = self.kernel[...].astype(jnp.float32) * self.scale
    return modulated_convolution(
      x_BHWI.astype(self.dtype),
      kernel,
      self.affine(w_BW),
      demodulate=self.demodulate,
      up=self.up,
      products=self.products,
    )


def modulated_convolution(
  x_BHWI: jax.Array,
  kernel_KKIO: jax.Array,
  scale_BI: jax.Array,
  *,
  demodulate: bool = True,
  up: bool = False,
  products: bool = False,
) -> jax.Array:
  """The convolution of each example with its own scaled kernel.

  Kernel k of example b is kernel * scale_b, divided by its norm over I and its
  pixels if `demodulate`. As this scales inputs and outputs of one and the same
  kernel, all examples share a single convolution: the inputs are scaled before
  it and the outputs after it.

  Args:
    x_BHWI: the inputs; the convolution is computed in their dtype.
    kernel_KKIO: of an odd size K, float32.
    scale_BI: float32.
    demodulate: whether each output channel of an example has unit gain.
    up: whether the result has twice the height and width.
    products: see resampling.convolution.

  Returns:
    [B, H, W, O] or [B, 2 H, 2 W, O], in the dtype of x.
  """
  dtype = x_BHWI.dtype
  x = x_BHWI * scale_BI.astype(dtype)[:, None, None]
  kernel = kernel_KKIO.astype(dtype)
  if up:
    y = resampling.transposed_convolution(x, kernel, products)
    # From 2 H + K - 2 pixels to 2 H; the filter takes 3 of them.
    more = 5 - kernel.shape[0]
    taps = [2 * tap for tap in resampling.BINOMIAL]
    y = resampling.upfirdn(y, taps, pad=(more - more // 2, more // 2))
  else:
    pad = kernel.shape[0] // 2
    y = resampling.convolution(x, kernel, pad=pad, products=products)
  if demodulate:
    square_IO = jnp.sum(jnp.square(kernel_KKIO), axis=(0, 1))
    norm_BO = jax.lax.rsqrt(jnp.square(scale_BI) @ square_IO + 1e-8)
    y *= norm_BO.astype(dtype)[:, None, None]
  return y


def activated(x: jax.Array) -> jax.Array:
  """Leaky relu 0.2 times sqrt(2), which keeps the variance."""
  return jax.nn.leaky_relu(x, 0.2) * math.sqrt(2)
