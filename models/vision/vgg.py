"""VGG: stacks of 3 x 3 convolutions between poolings, then dense layers.

The shape legend is in models/layers/basic.py; images are B, height, width, C.
`ConvStack` is shared with models/vision/alexnet.py.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import PartitionSpec as P

from models import Model, pure
from models.layers.basic import (
  BatchNorm,
  Conv,
  Dense,
  choose,
  dropout_layer,
  float_dtype,
)
from models.vision.conv import max_pool

# Convolutions before each of the five poolings: A, B, D and E of the paper.
DEPTHS = {
  11: (1, 1, 2, 2, 2),
  13: (2, 2, 2, 2, 2),
  16: (2, 2, 3, 3, 3),
  19: (2, 2, 4, 4, 4),
}


class Shape(NamedTuple):
  """One convolution of a ConvStack.

  width: its channels.
  size, stride, padding: of its kernel.
  pool: (window, stride) of the max pooling that follows it, or None.
  """

  width: int
  size: int = 3
  stride: int = 1
  padding: int = 1
  pool: tuple[int, int] | None = None


class ConvStack(nnx.Module):
  """Images to logits: convolutions, an average over a grid, dense layers.

  With `dropout_first` dropout precedes a hidden dense layer, otherwise it
  follows its relu.
  """

  def __init__(
    self,
    *,
    num_classes,
    channels,
    image_size,
    shapes: Sequence[Shape],
    grid,
    hidden,
    batchnorm,
    dropout,
    dropout_first,
    rngs,
    **common,
  ):
    self.pools = tuple(shape.pool for shape in shapes)
    self.grid, self.dropout_first = grid, dropout_first
    if _left(image_size, shapes) < 1:
      raise ValueError(
        f"images of {image_size} x {image_size} are too small for the poolings"
      )
    widths = [channels, *(shape.width for shape in shapes)]
    self.convs = nnx.List(
      Conv(
        inputs,
        shape.width,
        shape.size,
        shape.stride,
        padding=shape.padding,
        kernel_init=nnx.initializers.variance_scaling(2.0, "fan_out", "normal"),
        rngs=rngs,
        **common,
      )
      for inputs, shape in zip(widths[:-1], shapes, strict=True)
    )
    self.norms = nnx.data(
      nnx.List(
        BatchNorm(shape.width, param_dtype=common["param_dtype"])
        for shape in shapes
      )
      if batchnorm
      else None
    )
    sizes = [grid * grid * widths[-1], *hidden]
    self.dense = nnx.List(
      Dense(
        *pair, kernel_init=nnx.initializers.he_normal(), rngs=rngs, **common
      )
      for pair in zip(sizes[:-1], sizes[1:], strict=True)
    )
    self.dropout = nnx.data(dropout_layer(dropout, rngs))
    self.head = Dense(sizes[-1], num_classes, rngs=rngs, **common)

  def __call__(self, image_BHWC):
    """logits_BC, float32."""
    return self.head(self.features(image_BHWC)).astype("float32")

  def features(self, image_BHWC):
    """x_BF, the input of the last layer."""
    x = image_BHWC
    for index, conv in enumerate(self.convs):
      x = conv(x)
      if self.norms is not None:
        x = self.norms[index](x)
      x = pooled(jax.nn.relu(x), self.pools[index])
    x_BF = grid_mean(x, self.grid).reshape(x.shape[0], -1)
    for dense in self.dense:
      if self.dropout_first:
        x_BF = jax.nn.relu(dense(self._dropped(x_BF)))
      else:
        x_BF = self._dropped(jax.nn.relu(dense(x_BF)))
    return x_BF

  def _dropped(self, x_BF):
    return x_BF if self.dropout is None else self.dropout(x_BF)


def pooled(x_BHWC: jax.Array, pool: tuple[int, int] | None) -> jax.Array:
  """Max pooling of (window, stride), without padding; None pools nothing."""
  if pool is None:
    return x_BHWC
  window, stride = pool
  if window == stride:
    return max_pool(x_BHWC, window)
  return nnx.max_pool(x_BHWC, (window,) * 2, (stride,) * 2)


def grid_mean(x_BHWC: jax.Array, size: int) -> jax.Array:
  """Means over size x size rectangles that cover the image.

  Rectangle i of n pixels begins at floor(i n / size) and ends at ceil((i + 1) n
  / size), so that neighbours overlap, or repeat pixels, where size does not
  divide n.
  """
  for axis in (1, 2):
    n = x_BHWC.shape[axis]
    if n == size:
      continue
    share_SN = np.zeros((size, n), np.float32)
    for i in range(size):
      begin, end = i * n // size, -(-(i + 1) * n // size)
      share_SN[i, begin:end] = 1 / (end - begin)
    moved = jnp.moveaxis(x_BHWC, axis, -1)
    moved = jnp.einsum("...N,SN->...S", moved, share_SN.astype(x_BHWC.dtype))
    x_BHWC = jnp.moveaxis(moved, -1, axis)
  return x_BHWC


def _left(image_size: int, shapes: Sequence[Shape]) -> int:
  """Height and width of what the last pooling returns."""
  n = image_size
  for shape in shapes:
    n = (n + 2 * shape.padding - shape.size) // shape.stride + 1
    if shape.pool:
      n = (n - shape.pool[0]) // shape.pool[1] + 1
  return n


def vgg(
  *,
  num_classes: int,
  channels: int = 3,
  image_size: int = 224,
  depth: int = 16,
  width: int = 64,
  hidden: Sequence[int] = (4096, 4096),
  grid: int = 7,
  batchnorm: bool = False,
  dropout: float = 0.5,
  dtype: str = "float32",
  param_dtype: str = "float32",
) -> Model:
  """A VGG network, image_BHWC -> logits_BC in float32 (arXiv:1409.1556).

  For images of 32 x 32, of which the five poolings leave one pixel, choose
  `grid` 1 and few or no hidden layers. The method "features" returns x_BF, the
  input of the last layer.

  Args:
    num_classes: C of the logits.
    channels: C of the images.
    image_size: height and width of the images, at least 32.
    depth: 11, 13, 16 or 19 layers, counted with three dense ones.
    width: channels of the first convolution; later ones have up to eight times
      as many.
    hidden: widths of the hidden dense layers.
    grid: height and width of the means that the dense layers read, see
      `grid_mean`.
    batchnorm: whether there is batch norm between each convolution and its
      relu (arXiv:1502.03167).
    dropout: rate, after each hidden dense layer.
    dtype: of the computation.
    param_dtype: of the parameters.

  Raises:
    ValueError: the depth or a dtype is unknown, or the images are too small.
  """
  counts = DEPTHS[choose("depth", depth, DEPTHS)]
  shapes = [
    Shape(width * min(2**stage, 8), pool=(2, 2) if index == count - 1 else None)
    for stage, count in enumerate(counts)
    for index in range(count)
  ]
  config = {
    "num_classes": num_classes,
    "channels": channels,
    "image_size": image_size,
    "shapes": shapes,
    "grid": grid,
    "hidden": tuple(hidden),
    "batchnorm": batchnorm,
    "dropout": dropout,
    "dropout_first": False,
    "dtype": float_dtype("dtype", dtype),
    "param_dtype": float_dtype("param_dtype", param_dtype),
  }
  return pure(lambda rngs: ConvStack(rngs=rngs, **config))


SHARDING = [
  (r"convs/\d+/kernel", P(None, None, None, "tensor")),
  (r"dense/\d+/kernel", P(None, "tensor")),
]
