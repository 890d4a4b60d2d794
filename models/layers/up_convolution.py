"""An up-convolution: images of twice the size.

The shape legend is in models/layers/basic.py; images are B, height, width, C.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from models.layers.basic import Dense


class UpConvolution(nnx.Module):
  """A transposed convolution of 2 x 2 pixels and stride 2.

  Each pixel becomes four, by a matrix of its own for each of them, in the order
  (upper left, upper right, lower left, lower right) of the kernel's outputs.
  """

  def __init__(self, inputs: int, outputs: int, **common):
    self.dense = Dense(inputs, 4 * outputs, bias=False, **common)
    self.bias = nnx.Param(jnp.zeros((outputs,), common["param_dtype"]))

  def __call__(self, x_BHWC: jax.Array) -> jax.Array:
    """Returns [B, 2 H, 2 W, outputs]."""
    B, H, W, _ = x_BHWC.shape
    x = self.dense(x_BHWC).reshape(B, H, W, 2, 2, -1)
    x = x.transpose(0, 1, 3, 2, 4, 5).reshape(B, 2 * H, 2 * W, -1)
    return x + self.bias[...].astype(x.dtype)[None, None, None]
