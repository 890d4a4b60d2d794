"""Small convolutional classifiers: LeNet-5 and the two-layer CIFAR network.

The shape legend is in models/layers/basic.py; images are B, height, width, C.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
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

PADDINGS = ("same", "valid")
# Of the kernels. He's are the default, except for the last layer's.
INITS = {
  "he": nnx.initializers.he_normal(),
  "glorot": nnx.initializers.glorot_uniform(),
}
# Width of the kernels, and of the two convolutions and the dense layers.
VARIANTS = {"lenet": (5, (6, 16, 120, 84)), "cifar": (3, (64, 128, 256))}


class ConvNet(nnx.Module):
  """Two convolutions, each followed by pooling, then dense layers."""

  def __init__(
    self,
    *,
    num_classes,
    channels,
    image_size,
    kernel_size,
    features,
    padding,
    pooling,
    batchnorm,
    dropout,
    init,
    rngs,
    **common,
  ):
    last = {"kernel_init": INITS[init]} if init != "he" else {}
    init = {"kernel_init": INITS[init]}
    first, second, *dense = features
    self.pooling = tuple(pooling)
    self.convs = nnx.List(
      Conv(
        *pair,
        kernel_size,
        padding=0 if padding == "valid" else None,
        bias=not batchnorm,
        **init,
        **common,
        rngs=rngs,
      )
      for pair in ((channels, first), (first, second))
    )
    self.norms = nnx.data(
      nnx.List(
        BatchNorm(width, param_dtype=common["param_dtype"])
        for width in (first, second)
      )
      if batchnorm
      else None
    )
    pixels = _final_size(image_size, kernel_size, padding, pooling) ** 2
    sizes = [pixels * second, *dense]
    self.dense = nnx.List(
      Dense(*pair, **init, **common, rngs=rngs)
      for pair in zip(sizes[:-1], sizes[1:], strict=True)
    )
    self.dropout = nnx.data(dropout_layer(dropout, rngs))
    self.head = Dense(sizes[-1], num_classes, **last, **common, rngs=rngs)

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
      x = max_pool(jax.nn.relu(x), self.pooling[index])
    x_BF = x.reshape(x.shape[0], -1)
    for dense in self.dense:
      x_BF = jax.nn.relu(dense(x_BF))
      if self.dropout is not None:
        x_BF = self.dropout(x_BF)
    return x_BF


def _final_size(image_size, kernel_size, padding, pooling) -> int:
  """Height and width of the image after both convolutions and poolings."""
  size = image_size
  for window in pooling:
    size -= kernel_size - 1 if padding == "valid" else 0
    size = max(size, 0) // window
  return size


def max_pool(x_BHWC: jax.Array, window: int = 2) -> jax.Array:
  """The largest of each window x window pixels, without overlap.

  Rows and columns that do not fill a window are dropped. The maximum is taken
  by selection: on CPU the gradient of a windowed maximum is slow, and that of
  `max` compares the pixels with their maximum, which fails where the compiler
  computes them again with another rounding. Of equal pixels the first takes
  the gradient.
  """
  if window == 1:
    return x_BHWC
  B, H, W, C = x_BHWC.shape
  x_BHWC = x_BHWC[:, : H // window * window, : W // window * window]
  rows_BHkWC = x_BHWC.reshape(B, H // window, window, -1, C)
  x_BHWC = functools.reduce(
    _greater, [rows_BHkWC[:, :, i] for i in range(window)]
  )
  columns_BHWkC = x_BHWC.reshape(B, H // window, -1, window, C)
  return functools.reduce(
    _greater, [columns_BHWkC[:, :, :, i] for i in range(window)]
  )


def _greater(a: jax.Array, b: jax.Array) -> jax.Array:
  return jnp.where((a >= b) | jnp.isnan(a), a, b)


def conv(
  *,
  num_classes: int,
  channels: int,
  image_size: int,
  variant: str = "cifar",
  features: Sequence[int] | None = None,
  padding: str = "same",
  pooling: Sequence[int] = (2, 2),
  batchnorm: bool = False,
  dropout: float = 0.0,
  init: str = "he",
  dtype: str = "float32",
  param_dtype: str = "float32",
) -> Model:
  """A small convolutional classifier, image_BHWC -> logits_BC in float32.

  "lenet" is LeNet-5 (LeCun et al., 1998) with relu and max pooling: two 5 x 5
  convolutions of 6 and 16 channels, dense layers of 120 and 84. "cifar" is
  3 x 3 x 64, 3 x 3 x 128, dense 256. By default each convolution keeps the
  image's size and is followed by 2 x 2 max pooling. Its method "features"
  returns x_BF, the activations before the last layer.

  Args:
    num_classes: C of the logits.
    channels: C of the images.
    image_size: height and width of the images.
    variant: "lenet" or "cifar".
    features: widths of the two convolutions, then of each dense layer; the
      variant's own if None.
    padding: "same" pads images with zeros, so that a convolution keeps their
      size; "valid" does not pad, and each convolution takes its kernel's width
      less one off.
    pooling: width of the max pooling after each convolution; 1 does not pool.
    batchnorm: whether there is batch norm between each convolution and its
      relu (arXiv:1502.03167).
    dropout: rate, after each hidden dense layer.
    init: the distribution of the initial kernels: "he" is the normal one of
      arXiv:1502.01852, with normal(0.02) for the last layer; "glorot" is the
      uniform one of Glorot and Bengio (2010), Keras' default.
    dtype: of the computation.
    param_dtype: of the parameters.

  Raises:
    ValueError: an unknown variant, padding or init, fewer than three features,
      a pooling that is not two positive widths, or images too small for it.
  """
  kernel_size, widths = VARIANTS[choose("variant", variant, VARIANTS)]
  widths = tuple(features or widths)
  if len(widths) < 3:
    raise ValueError(
      f"features = {widths}: give the widths of two convolutions and of at"
      " least one dense layer"
    )
  choose("padding", padding, PADDINGS)
  choose("init", init, INITS)
  if len(pooling) != 2 or not all(
    isinstance(n, int) and n > 0 for n in pooling
  ):
    raise ValueError(
      f"pooling = {tuple(pooling)}: give a positive width for each of the two"
      " convolutions"
    )
  if not _final_size(image_size, kernel_size, padding, pooling):
    raise ValueError(
      f"images of {image_size} x {image_size} are too small for two"
      f" convolutions with padding {padding!r} and pooling {tuple(pooling)}"
    )
  config = {
    "num_classes": num_classes,
    "channels": channels,
    "image_size": image_size,
    "kernel_size": kernel_size,
    "features": widths,
    "padding": padding,
    "pooling": tuple(pooling),
    "batchnorm": batchnorm,
    "dropout": dropout,
    "init": init,
    "dtype": float_dtype("dtype", dtype),
    "param_dtype": float_dtype("param_dtype", param_dtype),
  }
  return pure(lambda rngs: ConvNet(rngs=rngs, **config))


SHARDING = [
  (r"convs/\d+/kernel", P(None, None, None, "tensor")),
  (r"dense/\d+/kernel", P(None, "tensor")),
]
