"""Convolutions of images of at most 2 x 2 pixels, as products.

XLA's convolution on CPU takes many times as long for them. The shape legend is
in models/layers/basic.py.
"""

import functools
from typing import Any

import jax
import numpy as np

from models.layers import partition

_MOST_PIXELS = 4


def suits(conv: Any, x_BHWI: jax.Array) -> bool:
  """Whether `convolved` computes what `conv`, a layers.basic.Conv, does."""
  _, H, W, _ = x_BHWI.shape
  how = (conv.stride, conv.padding, conv.dilation, conv.groups)
  plain = conv.kernel.shape[0] == 3 and how == (1, 1, 1, 1)
  few = 0 < H * W <= _MOST_PIXELS
  return plain and few and partition.platform() == "cpu"


def convolved(x_BHWI: jax.Array, kernel_33IO: jax.Array) -> jax.Array:
  """The 3 x 3 convolution with a border of zeros, [B, H, W, O].

  Each pair of an input and an output pixel has the tap of the kernel that joins
  them, or none: together a matrix of [H W I, H W O].
  """
  B, H, W, inputs = x_BHWI.shape
  pixels, outputs = H * W, kernel_33IO.shape[-1]
  taps = kernel_33IO.reshape(9, inputs * outputs)
  pairs = _pairs(H, W).astype(taps.dtype)
  matrix = (pairs @ taps).reshape(pixels, pixels, inputs, outputs)
  matrix = matrix.swapaxes(1, 2).reshape(pixels * inputs, pixels * outputs)
  return (x_BHWI.reshape(B, -1) @ matrix).reshape(B, H, W, outputs)


@functools.lru_cache
def _pairs(H: int, W: int) -> np.ndarray:
  """[H W H W, 9]: 1 where a tap joins an input pixel and an output pixel."""
  rows, columns = np.divmod(np.arange(H * W), W)
  down = rows[:, None] - rows[None] + 1
  right = columns[:, None] - columns[None] + 1
  tap = np.where(
    (abs(down - 1) < 2) & (abs(right - 1) < 2), 3 * down + right, 9
  )
  return np.eye(10, dtype=np.float32)[tap.reshape(-1), :9]
