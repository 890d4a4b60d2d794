"""Matrix products in 8 bits, for training.

The shape legend is in models/layers/basic.py. Rounding and products are qwix's;
the differentiation is defined here, since qwix's own requires rewriting the
entire model. The straight-through estimator is that of arXiv:1308.3432;
per-channel scales are from arXiv:1712.05877, the two 8-bit floats from
arXiv:2209.05433.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

# The formats of activations and kernels, and of gradients with a wider range.
FORMATS = {
  "int8": ("int8", "int8"),
  "fp8": ("float8_e4m3fn", "float8_e5m2"),
}
# The largest number of int8 products whose sum always fits in int32.
LONGEST = (2**31 - 1) // 127**2
# qwix maps the greatest magnitude to 127.5, between two integers, where the
# last bit of a scale decides; this makes it 127.
CALIBRATION = {"int8": f"absmax,{127.5 / 127}"}


def check(how: str | None) -> str | None:
  """Returns `how` if `matmul` supports it on this machine.

  Raises:
    ValueError: it is neither None nor a key of FORMATS, or qwix is missing.
  """
  if how is None:
    return None
  if how not in FORMATS:
    listed = ", ".join(FORMATS)
    raise ValueError(f"matmul = {how!r} is none of: None, {listed}")
  _qwix()
  return how


def matmul(x: jax.Array, kernel_IO: jax.Array, how: str | None) -> jax.Array:
  """Returns x times the kernel, [..., O] in x's dtype; in 8 bits unless None.

  Each row of x and each column of the kernel is divided by its scale, its
  greatest magnitude over the format's, and rounded: x = s X, kernel = W t. Then
  y = s (X W) t, summed in int32 for int8, else in float32. In the backward
  pass, rounding counts as the identity, and the gradient g of y is rounded in
  the same way, once for each product that sums over other axes of it:

    dx = round(g t) W', one scale per row;  dkernel = X' round(s g), per column

  Remat policies name the result "matmul". Forward-mode derivatives are not
  defined.

  Args:
    x: [..., I].
    kernel_IO: its dtype is its gradient's.
    how: a key of FORMATS, "int8" or "fp8"; None for the unquantized product.

  Raises:
    ValueError: as `check`, or more than LONGEST inputs for int8.
  """
  if check(how) is None:
    return x @ kernel_IO
  if how == "int8" and kernel_IO.shape[0] > LONGEST:
    raise ValueError(f"int8 products of more than {LONGEST} inputs overflow")
  return checkpoint_name(_matmul(x, kernel_IO, how), "matmul")


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _matmul(x, kernel_IO, how):
  dtype, _ = FORMATS[how]
  last = x.ndim - 1
  X = _round(x, dtype, (last,))
  W = _round(kernel_IO, dtype, (0,))
  return _dot(X, W, (last,), (0,)).astype(x.dtype)


def _forward(x, kernel_IO, how):
  # The residuals are those of the plain product, so that every remat policy has
  # the same meaning; rounding again costs less than keeping both.
  return _matmul(x, kernel_IO, how), (x, kernel_IO)


def _backward(how, kept, g):
  x, kernel_IO = kept
  dtype, gradient_dtype = FORMATS[how]
  last = g.ndim - 1
  rows = tuple(range(last))
  X = _round(x, dtype, (last,))
  W = _round(kernel_IO, dtype, (0,))
  t = W.scale.reshape((1,) * last + (-1,))
  to_x = _round(g * t, gradient_dtype, (last,))
  to_kernel = _round(X.scale * g, gradient_dtype, rows)
  dx = _dot(to_x, W.qvalue, (last,), (1,))
  dkernel_IO = _dot(to_kernel, X.qvalue, rows, rows).T
  return dx.astype(x.dtype), dkernel_IO.astype(kernel_IO.dtype)


_matmul.defvjp(_forward, _backward)


def _round(x, dtype, summed):
  """Returns a QArray of `x`, whose scales are shared along the axes `summed`.

  If their product might not fit in int32, the last of them has scales per
  block, and qwix sums blocks in float32.
  """
  terms = math.prod(x.shape[axis] for axis in summed)
  blocks = {}
  if dtype == "int8" and terms > LONGEST:
    length = x.shape[summed[-1]]
    counts = range(-(-terms // LONGEST), length)
    count = next((n for n in counts if length % n == 0), length)
    blocks = {summed[-1]: length // count}
  return _qwix().quantize(
    x.astype(jnp.float32),
    dtype,
    channelwise_axes=sorted(set(range(x.ndim)) - set(summed)),
    tiled_axes=blocks,
    calibration_method=CALIBRATION.get(dtype, "absmax"),
  )


def _dot(a, b, a_axes, b_axes):
  return _qwix().dot_general(a, b, ((a_axes, b_axes), ((), ())))


def _qwix():
  try:
    import qwix
  except ImportError:
    raise ValueError(
      'matmul = "int8" and "fp8" need the extra "quantization":'
      ' pip install -e ".[quantization]"'
    ) from None
  return qwix
