"""Dilated separable convolutions over time, for taggers and readers.

The shape legend is in models/layers/basic.py.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from models.layers.basic import Dense, Norm, along_last, dropout_layer


class SeparableBlock(nnx.Module):
  """x + dropout(dense(gelu(dense(depthwise(norm(x)))))), shape [B, T, D].

  The depthwise convolution weighs `width` positions, `dilation` apart, in each
  channel; the dense layers are D to D. QANet's (arXiv:1804.09541, section 2.2),
  dilated as in arXiv:1702.02098, with two pointwise layers.

  Attributes:
    taps: [width, D], normal of variance 1 / width.
  """

  def __init__(self, dim, *, width, dilation, dropout, rngs, **common):
    self.dilation, self.width = dilation, width
    common = {**common, "rngs": rngs}
    self.dtype = common["dtype"]
    self.norm = Norm(dim, param_dtype=common["param_dtype"])
    self.taps = nnx.Param(
      nnx.initializers.normal(width**-0.5)(
        rngs.params(), (width, dim), common["param_dtype"]
      )
    )
    init = nnx.initializers.lecun_normal()
    self.up = Dense(dim, dim, kernel_init=init, **common)
    self.down = Dense(dim, dim, kernel_init=init, **common)
    self.dropout = nnx.data(dropout_layer(dropout, rngs))

  def __call__(self, x_BTD, real_BT1):
    """Returns the block's output, 0 where real_BT1 is 0."""
    T, reach = x_BTD.shape[1], self.dilation * (self.width // 2)
    taps = self.taps[...].astype(self.dtype)
    padded = jnp.pad(
      self.norm(x_BTD) * real_BT1, ((0, 0), (reach, reach), (0, 0))
    )
    # Sums of shifted copies: XLA's own grouped convolution is slow on a CPU.
    y_BTD = sum(
      along_last(taps[k], 3)
      * padded[:, k * self.dilation : k * self.dilation + T]
      for k in range(self.width)
    )
    y_BTD = self.down(jax.nn.gelu(self.up(y_BTD)))
    if self.dropout is not None:
      y_BTD = self.dropout(y_BTD)
    return (x_BTD + y_BTD) * real_BT1


class SeparableStack(nnx.Module):
  """A block for each dilation, followed by a norm."""

  def __init__(self, dim, dilations: Sequence[int], **common):
    self.blocks = nnx.List(
      SeparableBlock(dim, dilation=dilation, **common) for dilation in dilations
    )
    self.norm = Norm(dim, param_dtype=common["param_dtype"])

  def __call__(self, x_BTD, real_BT1):
    """Returns x_BTD."""
    for block in self.blocks:
      x_BTD = block(x_BTD, real_BT1)
    return self.norm(x_BTD) * real_BT1


def check(width: int, dilations: Sequence[int]) -> None:
  """Raises ValueError if the width is even or a dilation is not positive."""
  if width < 1 or width % 2 == 0:
    raise ValueError(f"width = {width} is not odd: it has no middle position")
  if not dilations or min(dilations) < 1:
    raise ValueError(f"dilations = {tuple(dilations)} are not positive")
