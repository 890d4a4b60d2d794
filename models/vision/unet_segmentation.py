"""The U-Net that classifies pixels.

The shape legend is in models/layers/basic.py; images are B, height, width, C.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P

from models import Model, pure
from models.layers.basic import (
  BatchNorm,
  Conv,
  GroupNorm,
  choose,
  dropout_layer,
  float_dtype,
)
from models.layers.up_convolution import UpConvolution

NORMS = {"batch": BatchNorm, "group": GroupNorm}
_HE = nnx.initializers.he_normal()


class Double(nnx.Module):
  """Twice relu(norm(conv(x)))."""

  def __init__(self, inputs, outputs, *, norm, **common):
    layer = {"bias": False, "kernel_init": _HE, **common}
    kind = NORMS[norm]
    self.conv1 = Conv(inputs, outputs, 3, **layer)
    self.norm1 = kind(outputs, param_dtype=common["param_dtype"])
    self.conv2 = Conv(outputs, outputs, 3, **layer)
    self.norm2 = kind(outputs, param_dtype=common["param_dtype"])

  def __call__(self, x_BHWC):
    """Returns [B, H, W, outputs]."""
    x_BHWC = jax.nn.relu(self.norm1(self.conv1(x_BHWC)))
    return jax.nn.relu(self.norm2(self.conv2(x_BHWC)))


class Up(nnx.Module):
  """Doubles height and width and halves the channels, joins, and convolves."""

  def __init__(self, inputs, *, norm, **common):
    self.up = UpConvolution(inputs, inputs // 2, kernel_init=_HE, **common)
    self.mix = Double(inputs, inputs // 2, norm=norm, **common)

  def __call__(self, x_BHWC, skip_BHWC):
    """Returns the shape of the skip."""
    joined = jnp.concatenate([skip_BHWC, self.up(x_BHWC)], axis=-1)
    return self.mix(joined)


class UNetSegmentation(nnx.Module):
  """See `unet_segmentation`."""

  def __init__(
    self, *, num_classes, channels, width, levels, norm, dropout, **common
  ):
    self.dtype = common["dtype"]
    sizes = [width * 2**i for i in range(levels + 1)]
    pairs = zip([channels, *sizes[:-1]], sizes, strict=True)
    self.down = nnx.List(Double(*pair, norm=norm, **common) for pair in pairs)
    self.dropout = nnx.data(dropout_layer(dropout, common["rngs"]))
    self.up = nnx.List(Up(n, norm=norm, **common) for n in sizes[:0:-1])
    self.head = Conv(width, num_classes, 1, kernel_init=_HE, **common)

  def __call__(self, image_BHWC):
    """logits_BHWC of every pixel, float32."""
    _, H, W, _ = image_BHWC.shape
    least = 2 ** len(self.up)
    room = ((0, 0), (0, -H % least), (0, -W % least), (0, 0))
    x = jnp.pad(image_BHWC.astype(self.dtype), room)
    skips = []
    for i, block in enumerate(self.down):
      x = block(nnx.max_pool(x, (2, 2), (2, 2)) if i else x)
      skips.append(x)
    x = skips.pop()
    if self.dropout is not None:
      x = self.dropout(x)
    for block in self.up:
      x = block(x, skips.pop())
    return self.head(x).astype("float32")[:, :H, :W]


def unet_segmentation(
  *,
  num_classes: int,
  channels: int,
  width: int = 64,
  levels: int = 4,
  norm: str = "batch",
  dropout: float = 0.0,
  dtype: str = "float32",
  param_dtype: str = "float32",
) -> Model:
  """A U-Net (Ronneberger et al., 2015, arXiv:1505.04597).

  image_BHWC -> logits_BHWC in float32. Unlike in the paper, convolutions are
  padded and followed by a norm, so that every pixel of the image has logits. An
  image of any size is padded with zeros at its right and lower side to a
  multiple of 2^levels.

  Args:
    num_classes: C of the logits.
    channels: C of the images.
    width: channels at full size; they double at each halving.
    levels: the number of halvings.
    norm: "batch" or "group".
    dropout: rate, at the smallest size.
    dtype: of the computation.
    param_dtype: of the parameters.

  Raises:
    ValueError: the norm or a dtype is unknown.
  """
  config = {
    "num_classes": num_classes,
    "channels": channels,
    "width": width,
    "levels": levels,
    "norm": choose("norm", norm, NORMS),
    "dropout": dropout,
    "dtype": float_dtype("dtype", dtype),
    "param_dtype": float_dtype("param_dtype", param_dtype),
  }
  return pure(lambda rngs: UNetSegmentation(rngs=rngs, **config))


SHARDING = [
  (r"(conv\d|head)/kernel", P(None, None, None, "tensor")),
]
