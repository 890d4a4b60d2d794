"""A small fully convolutional network that classifies pixels.

The shape legend is in models/layers/basic.py; images are B, height, width, C.
"""

import jax
from flax import nnx
from jax.sharding import PartitionSpec as P

from models import Model, pure
from models.layers.basic import Conv, Norm, float_dtype

_HE = nnx.initializers.he_normal()


class ConvNorm(nnx.Module):
  """relu(norm(conv(x))); the norm is over the channels of each pixel."""

  def __init__(self, inputs, outputs, stride=1, *, rngs, **common):
    self.conv = Conv(
      inputs, outputs, 3, stride, kernel_init=_HE, **common, rngs=rngs
    )
    self.norm = Norm(outputs, param_dtype=common["param_dtype"])

  def __call__(self, x_BHWC):
    """Returns [B, H / stride, W / stride, outputs]."""
    return jax.nn.relu(self.norm(self.conv(x_BHWC)))


class Residual(nnx.Module):
  """x + two ConvNorm."""

  def __init__(self, width, *, rngs, **common):
    self.first = ConvNorm(width, width, **common, rngs=rngs)
    self.second = ConvNorm(width, width, **common, rngs=rngs)

  def __call__(self, x_BHWC):
    """Returns the shape of x."""
    return x_BHWC + self.second(self.first(x_BHWC))


class Encoder(nnx.Module):
  """Three halvings of the picture, with residual blocks after the last one."""

  def __init__(self, channels, width, blocks, *, rngs, **common):
    sizes = (channels, width, 2 * width, 4 * width)
    self.down = nnx.List(
      ConvNorm(*pair, 2, **common, rngs=rngs)
      for pair in zip(sizes[:-1], sizes[1:], strict=True)
    )
    self.blocks = nnx.List(
      Residual(4 * width, **common, rngs=rngs) for _ in range(blocks)
    )

  def __call__(self, x_BHWC):
    """Returns the features at strides 2, 4 and 8."""
    found = []
    for layer in self.down:
      x_BHWC = layer(x_BHWC)
      found.append(x_BHWC)
    for block in self.blocks:
      x_BHWC = block(x_BHWC)
    return (*found[:-1], x_BHWC)


class Fcn(nnx.Module):
  """An Encoder, and a decoder that adds its finer features."""

  def __init__(self, *, num_classes, channels, width, blocks, rngs, **common):
    self.encoder = Encoder(channels, width, blocks, rngs=rngs, **common)
    self.up = nnx.List(
      ConvNorm(*pair, rngs=rngs, **common)
      for pair in ((4 * width, 2 * width), (2 * width, width))
    )
    self.mix = nnx.List(
      ConvNorm(size, size, rngs=rngs, **common) for size in (2 * width, width)
    )
    self.head = Conv(width, num_classes, 1, **common, rngs=rngs)

  def __call__(self, image_BHWC):
    """logits_BHWC of every pixel, float32."""
    *skips, x = self.encoder(image_BHWC)
    for up, mix, skip in zip(self.up, self.mix, skips[::-1], strict=True):
      x = mix(resized(up(x), skip.shape[1:3]) + skip)
    return resized(self.head(x).astype("float32"), image_BHWC.shape[1:3])


def resized(x_BHWC: jax.Array, size: tuple[int, int]) -> jax.Array:
  """Interpolates to `size`, (height, width), bilinearly."""
  shape = (x_BHWC.shape[0], *size, x_BHWC.shape[3])
  return jax.image.resize(x_BHWC, shape, "bilinear")


def fcn(
  *,
  num_classes: int,
  channels: int,
  width: int = 24,
  blocks: int = 3,
  dtype: str = "float32",
  param_dtype: str = "float32",
) -> Model:
  """A classifier of pixels, image_BHWC -> logits_BHWC in float32.

  An encoder down to an eighth of the size, and a decoder that adds the finer
  features (Long et al., 2015, arXiv:1411.4038; the sums are those of
  LinkNet, arXiv:1707.03718). Any height and width.

  Args:
    num_classes: C of the logits.
    channels: C of the images.
    width: channels at half the size; they double at each halving.
    blocks: residual blocks at an eighth of the size.
    dtype: of the computation.
    param_dtype: of the parameters.
  """
  config = {
    "num_classes": num_classes,
    "channels": channels,
    "width": width,
    "blocks": blocks,
    "dtype": float_dtype("dtype", dtype),
    "param_dtype": float_dtype("param_dtype", param_dtype),
  }
  return pure(lambda rngs: Fcn(rngs=rngs, **config))


SHARDING = [(r"conv/kernel", P(None, None, None, "tensor"))]
