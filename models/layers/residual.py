"""Residual blocks, their shortcuts and stems: versions 1.5 and 2.

They are of convolutions with batch norm. The shape legend is in
models/layers/basic.py; images are B, height, width, C.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from models.layers.basic import (
  BatchNorm,
  Conv,
  dropout_layer,
)
from models.layers.stochastic_depth import stochastic_depth


class ConvNorm(nnx.Module):
  """A convolution without bias and with symmetric padding, then batch norm.

  With `before`, norm and relu come first; `zero` starts the last of both at 0.
  `frozen` is that of BatchNorm.
  """

  def __init__(
    self,
    inputs,
    outputs,
    size,
    stride=1,
    *,
    dilation=1,
    before=False,
    zero=False,
    frozen=False,
    dtype,
    param_dtype,
    rngs,
  ):
    # Fan out preserves the gradients' variance (arXiv:1502.01852, 2.2).
    init = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")
    self.before = before
    self.conv = Conv(
      inputs,
      outputs,
      size,
      stride,
      padding=dilation * (size // 2),
      dilation=dilation,
      bias=False,
      kernel_init=nnx.initializers.zeros if zero and before else init,
      dtype=dtype,
      param_dtype=param_dtype,
      rngs=rngs,
    )
    self.norm = BatchNorm(
      inputs if before else outputs, frozen=frozen, param_dtype=param_dtype
    )
    if zero and not before:
      self.norm.scale[...] = jnp.zeros_like(self.norm.scale[...])

  def __call__(self, x):
    """norm(conv(x)); conv(relu(norm(x))) with `before`."""
    if self.before:
      return self.conv(self.activated(x))
    return self.norm(self.conv(x))

  def activated(self, x):
    """relu(norm(x)), what the convolution reads with `before`."""
    return jax.nn.relu(self.norm(x))


class Shortcut(nnx.Module):
  """The projection of a block's input where its size or channels change.

  A 1 x 1 convolution and, without `before`, a norm. With `pooled` a mean over
  2 x 2 pixels takes the place of the stride; pixels outside do not count.
  """

  def __init__(self, inputs, outputs, stride, *, before, pooled, **common):
    self.pool = pooled and stride > 1
    stride = 1 if self.pool else stride
    conv = ConvNorm(inputs, outputs, 1, stride, **common)
    self.conv = conv.conv
    self.norm = nnx.data(None if before else conv.norm)

  def __call__(self, x):
    """The projection, of the block's output's shape."""
    if self.pool:
      x = nnx.avg_pool(x, (2, 2), (2, 2), "SAME", count_include_pad=False)
    x = self.conv(x)
    return x if self.norm is None else self.norm(x)


class ResidualBlock(nnx.Module):
  """relu(shortcut(x) + convs(x)), shape [B, height, width, C].

  In version 2 there is no relu after the sum; each convolution follows its norm
  and relu (arXiv:1603.05027).
  """

  def __init__(
    self,
    inputs,
    width,
    stride,
    bottleneck,
    *,
    inner=1.0,
    version=1,
    shortcut="conv",
    zero_init=False,
    dropout=0.0,
    drop_path=0.0,
    dilations=(1, 1),
    **common,
  ):
    entry, dilation = dilations
    if bottleneck:
      outputs, inside = 4 * width, int(width * inner)
      shapes = [
        (inputs, inside, 1, 1, 1),
        (inside, inside, 3, stride, entry),
        (inside, outputs, 1, 1, 1),
      ]
    else:
      outputs = width
      shapes = [
        (inputs, width, 3, stride, entry),
        (width, width, 3, 1, dilation),
      ]
    self.before = version == 2
    last = len(shapes) - 1
    self.convs = nnx.List(
      ConvNorm(
        *shape,
        dilation=apart,
        before=self.before,
        zero=zero_init and i == last,
        **common,
      )
      for i, (*shape, apart) in enumerate(shapes)
    )
    self.shortcut = nnx.data(
      Shortcut(
        inputs,
        outputs,
        stride,
        before=self.before,
        pooled=shortcut == "pool",
        **common,
      )
      if stride != 1 or inputs != outputs
      else None
    )
    self.dropout = nnx.data(dropout_layer(dropout, common["rngs"]))
    self.drop_path = nnx.data(stochastic_depth(drop_path, 4, common["rngs"]))

  def __call__(self, x):
    """The block's output; with a stride of 2 it has a quarter of the pixels."""
    if self.before:
      return self._version_2(x)
    y = x
    for conv in self.convs[:-1]:
      y = jax.nn.relu(conv(y))
    y = self._branch(self.convs[-1](self._dropped(y)))
    return jax.nn.relu(y + (x if self.shortcut is None else self.shortcut(x)))

  def _version_2(self, x):
    first, *middle, last = self.convs
    y = first.activated(x)
    if self.shortcut is not None:
      x = self.shortcut(y)
    y = first.conv(y)
    for conv in middle:
      y = conv(y)
    y = last.conv(self._dropped(last.activated(y)))
    return x + self._branch(y)

  def _dropped(self, y):
    return y if self.dropout is None else self.dropout(y)

  def _branch(self, y):
    return y if self.drop_path is None else self.drop_path(y)


class Stem(nnx.Module):
  """The first convolutions, with norm and relu, but in version 2 the last's."""

  def __init__(self, channels, width, shapes, *, version, **common):
    sizes = [channels, *(int(width * share) for _, _, share in shapes)]
    pairs = zip(sizes[:-1], sizes[1:], shapes, strict=True)
    convs = [ConvNorm(i, o, *shape[:2], **common) for i, o, shape in pairs]
    self.last = nnx.data(convs.pop().conv if version == 2 else None)
    self.convs = nnx.List(convs)

  def __call__(self, x):
    """The activations that the pooling or the first block reads."""
    for conv in self.convs:
      x = jax.nn.relu(conv(x))
    return x if self.last is None else self.last(x)
