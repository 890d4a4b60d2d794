"""StyleGAN2: images from styles.

The shape legend is in models/layers/basic.py; images are B, height, width, C;
L is the number of styles of an image and W their size.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P

from models import pure
from models.layers import partition, resampling
from models.layers.basic import along_last, float_dtype
from models.layers.equalized import (
  EqualizedConv,
  EqualizedDense,
  ModulatedConv,
  activated,
)
from models.vision.gan import Gan, pixel_norm, pyramid

_MEAN_RATE = 0.005  # of the moving average of w
_SLOW = 0.01  # rate of the mapping network


class StyledLayer(nnx.Module):
  """A modulated convolution with noise, a bias and leaky relu."""

  def __init__(self, inputs, outputs, *, up, styles, rngs, **common):
    self.conv = ModulatedConv(
      inputs, outputs, 3, up=up, styles=styles, rngs=rngs, **common
    )
    zeros = jnp.zeros((outputs,), common["param_dtype"])
    self.bias = nnx.Param(zeros)
    self.noise = nnx.Param(jnp.zeros((), common["param_dtype"]))

  def __call__(self, x_BHWC, w_BW, key=None):
    """Returns [B, H, W, outputs], or twice the height and width."""
    y = self.conv(x_BHWC, w_BW)
    if key is not None:
      noise_BHW1 = jax.random.normal(key, (*y.shape[:3], 1))
      y += (noise_BHW1 * self.noise[...]).astype(y.dtype)
    return activated(y + along_last(self.bias[...].astype(y.dtype), 4))


class ToImage(nnx.Module):
  """A modulated 1 x 1 convolution to the channels of an image, float32."""

  def __init__(self, inputs, channels, *, styles, rngs, **common):
    how = {"demodulate": False, "styles": styles, "rngs": rngs, **common}
    self.conv = ModulatedConv(inputs, channels, 1, **how)
    self.bias = nnx.Param(jnp.zeros((channels,), common["param_dtype"]))

  def __call__(self, x_BHWC, w_BW):
    """image_BHWC."""
    y = self.conv(x_BHWC, w_BW).astype(jnp.float32)
    return y + along_last(self.bias[...].astype(jnp.float32), 4)


class Generator(nnx.Module):
  """A mapping network to styles, and a synthesis network from them.

  Attributes:
    mean: moving average of the styles w, [W]; for truncation.
  """

  def __init__(
    self, *, start, widths, channels, num_classes, latent, styles, depth, rngs,
    **common,
  ):  # fmt: skip
    self.start, self.use_running_average = start, False
    full = {"dtype": jnp.float32, "param_dtype": common["param_dtype"]}
    self.label = nnx.data(
      EqualizedDense(num_classes, latent, bias=False, rngs=rngs, **full)
      if num_classes
      else None
    )
    inputs = [2 * latent if num_classes else latent] + [styles] * (depth - 1)
    self.mapping_layers = nnx.List(
      EqualizedDense(size, styles, rate=_SLOW, rngs=rngs, **full)
      for size in inputs
    )
    self.mean = nnx.BatchStat(jnp.zeros((styles,), jnp.float32))
    shape = (1, start, start, widths[0])
    self.constant = nnx.Param(
      nnx.initializers.normal(1.0)(rngs.params(), shape, full["param_dtype"])
    )
    ends = [(widths[0], widths[0], False)]
    for before, width in zip(widths, widths[1:], strict=False):
      ends += [(before, width, True), (width, width, False)]
    layer = {"styles": styles, "rngs": rngs, **common}
    self.layers = nnx.List(
      StyledLayer(i, o, up=up, **layer) for i, o, up in ends
    )
    self.images = nnx.List(ToImage(w, channels, **layer) for w in widths)

  def __call__(self, z_BZ, label_B=None, key=None, **how):
    """image_BHWC of the styles of z, float32; see `styles`, `synthesis`."""
    style_key = noise_key = None
    if key is not None:
      style_key, noise_key = jax.random.split(key)
    return self.synthesis(
      self.styles(z_BZ, label_B, style_key, **how), noise_key
    )

  def mapping(self, z_BZ, label_B=None):
    """w_BW, float32."""
    x = pixel_norm(z_BZ.astype(jnp.float32))
    if self.label is not None:
      one_hot = jax.nn.one_hot(label_B, self.label.kernel.shape[0])
      y = pixel_norm(self.label(one_hot))
      x = jnp.concatenate([x, y], axis=-1)
    for layer in self.mapping_layers:
      x = activated(layer(x))
    return x

  def styles(self, z_BZ, label_B=None, key=None, *, truncation=1.0, mixing=0.0):
    """w_BLW of each layer, and in training the moving average of w.

    Args:
      z_BZ: normal noise.
      label_B: int32, if there are classes.
      key: of the styles that are mixed in; None mixes none.
      truncation: psi; w becomes mean + psi (w - mean).
      mixing: the share of examples whose layers after a random one have the
        styles of another z.
    """
    w_BW = self.mapping(z_BZ, label_B)
    if not self.use_running_average:
      step = jax.lax.stop_gradient(jnp.mean(w_BW, axis=0)) - self.mean[...]
      self.mean[...] += _MEAN_RATE * step
    count = len(self.layers) + 1
    w_BLW = jnp.broadcast_to(w_BW[:, None], (len(w_BW), count, w_BW.shape[1]))
    if mixing and key is not None:
      other_key, place_key, whether_key = jax.random.split(key, 3)
      other_z = jax.random.normal(other_key, z_BZ.shape)
      other_BW = self.mapping(other_z, label_B)
      size = (len(w_BW), 1)
      place_B1 = jax.random.randint(place_key, size, 1, count)
      mixed_B1 = jax.random.bernoulli(whether_key, mixing, size)
      after_BL = (jnp.arange(count)[None] >= place_B1) & mixed_B1
      w_BLW = jnp.where(after_BL[..., None], other_BW[:, None], w_BLW)
    if truncation == 1:
      return w_BLW
    mean = along_last(self.mean[...], 3)
    return mean + truncation * (w_BLW - mean)

  def average(self, count):
    """The moving average of w, [count, W]."""
    mean_W = self.mean[...]
    return jnp.broadcast_to(mean_W[None], (count, len(mean_W)))

  def synthesis(self, w_BLW, key=None):
    """image_BHWC, float32; without noise if there is no key."""
    # Drawn noise has no sharding of its own: each device would compute it all.
    w_BLW = partition.place(w_BLW, "BLW")
    keys = [None] * len(self.layers)
    if key is not None:
      keys = list(jax.random.split(key, len(keys)))
    x = jnp.broadcast_to(
      self.constant[...], (len(w_BLW), *self.constant.shape[1:])
    )
    x = self.layers[0](x, w_BLW[:, 0], keys[0])
    image = self.images[0](x, w_BLW[:, 1])
    for i, to_image in enumerate(list(self.images)[1:]):
      for k in (2 * i + 1, 2 * i + 2):
        x = self.layers[k](x, w_BLW[:, k], keys[k])
      image = resampling.doubled(image) + to_image(x, w_BLW[:, 2 * i + 3])
    return image


class ResidualBlock(nnx.Module):
  """Two convolutions to half the size, and a skip of 1 x 1."""

  def __init__(self, inputs, outputs, **common):
    self.first = EqualizedConv(inputs, inputs, 3, **common)
    self.second = EqualizedConv(inputs, outputs, 3, down=True, **common)
    self.skip = EqualizedConv(
      inputs, outputs, 1, down=True, bias=False, **common
    )

  def __call__(self, x_BHWC):
    """Returns [B, H / 2, W / 2, outputs]."""
    y = activated(self.second(activated(self.first(x_BHWC))))
    return (y + self.skip(x_BHWC)) / math.sqrt(2)


class Discriminator(nnx.Module):
  """Residual blocks, the deviation within groups of examples, and a score."""

  def __init__(
    self, *, start, widths, channels, num_classes, group, rngs, **common
  ):
    self.group, self.num_classes = group, num_classes
    layer = {"rngs": rngs, **common}
    self.from_image = EqualizedConv(channels, widths[-1], 1, **layer)
    down = widths[::-1]
    self.blocks = nnx.List(
      ResidualBlock(inputs, outputs, **layer)
      for inputs, outputs in zip(down, down[1:], strict=False)
    )
    width = widths[0]
    extra = 1 if group > 1 else 0
    self.last = EqualizedConv(width + extra, width, 3, **layer)
    del layer["products"]
    self.dense = EqualizedDense(start * start * width, width, **layer)
    self.head = EqualizedDense(width, max(num_classes, 1), **layer)

  def __call__(self, image_BHWC, label_B=None):
    """logits_B, float32."""
    x = activated(self.from_image(image_BHWC))
    for block in self.blocks:
      x = block(x)
    if self.group > 1:
      x = with_deviation(x, self.group)
    x = activated(self.last(x))
    x = activated(self.dense(x.reshape(len(x), -1)))
    logits_BC = self.head(x).astype(jnp.float32)
    if not self.num_classes:
      return logits_BC[:, 0]
    return jnp.take_along_axis(logits_BC, label_B[:, None], axis=1)[:, 0]


def with_deviation(x_BHWC: jax.Array, group: int) -> jax.Array:
  """x and one more channel: how much the examples of a group differ.

  It is the standard deviation over the group, averaged over pixels and channels
  (arXiv:1710.10196, section 3). Example b is in group b mod (B / group); if
  `group` does not divide B, their greatest common divisor is taken.
  """
  B, H, W, C = x_BHWC.shape
  group = math.gcd(group, B)
  y = x_BHWC.astype(jnp.float32).reshape(group, B // group, H, W, C)
  y -= jnp.mean(y, axis=0, keepdims=True)
  deviation = jnp.sqrt(jnp.mean(y * y, axis=0) + 1e-8)
  deviation = jnp.mean(deviation, axis=(1, 2, 3))
  shape = (group, B // group, H, W, 1)
  added = jnp.broadcast_to(deviation[None, :, None, None, None], shape)
  added = added.reshape(B, H, W, 1).astype(x_BHWC.dtype)
  return jnp.concatenate([x_BHWC, added], axis=-1)


def widths_of(image_size: int, base: int, most: int) -> Sequence[int]:
  """Channels at each size, min(base / size, most), from the smallest size on.

  Raises:
    ValueError: a size has no channels.
  """
  start, doublings = pyramid(image_size)
  found = [min(base // (start * 2**i), most) for i in range(doublings + 1)]
  if min(found) < 1:
    raise ValueError(f"base = {base} is smaller than image_size = {image_size}")
  return found


def stylegan2(
  *,
  image_size: int = 28,
  channels: int = 1,
  num_classes: int | None = None,
  conditional: bool = True,
  latent: int = 512,
  styles: int = 512,
  mapping_layers: int = 8,
  base: int = 32_768,
  most: int = 512,
  group: int = 4,
  products: bool = False,
  dtype: str = "float32",
  param_dtype: str = "float32",
) -> Gan:
  """StyleGAN2 (Karras et al., 2020, arXiv:1912.04958), configuration F.

  The generator sums the images of all sizes (skips), the discriminator is
  residual. The defaults are the published sizes: 30.0M parameters of the
  generator and 28.9M of the discriminator for colour images of 256 x 256.
  With classes, an embedding of the label joins z, and the discriminator has a
  score for each class.

  Images are in [-1, 1]. The generator reads z_BZ, label_B and a key of its
  noise; see its methods "styles" and "synthesis".

  Args:
    image_size: height and width. Halving it must lead to 7 or less.
    channels: C of the images.
    num_classes: number of classes; None for no classes.
    conditional: whether the networks are given the classes.
    latent: Z.
    styles: W.
    mapping_layers: number of layers from z to w.
    base: there are base / size channels at each size, at most `most`.
    most: the largest number of channels.
    group: examples whose deviation the discriminator sees; 1 for none.
    products: whether convolutions are products of patches, which is faster on a
      CPU; see models/layers/resampling.py.
    dtype: of the convolutions.
    param_dtype: of the parameters.

  Raises:
    ValueError: a size is out of range, or a dtype is unknown.
  """
  if min(latent, styles, mapping_layers, group) < 1:
    raise ValueError("latent, styles, mapping_layers and group are at least 1")
  classes = (num_classes or 0) if conditional else 0
  common = {
    "start": pyramid(image_size)[0],
    "widths": widths_of(image_size, base, most),
    "channels": channels,
    "num_classes": classes,
    "products": products,
    "dtype": float_dtype("dtype", dtype),
    "param_dtype": float_dtype("param_dtype", param_dtype),
  }
  own = {"latent": latent, "styles": styles, "depth": mapping_layers}
  return Gan(
    pure(lambda rngs: Generator(rngs=rngs, **own, **common)),
    pure(lambda rngs: Discriminator(group=group, rngs=rngs, **common)),
    latent,
    classes,
    styles=True,
  )


SHARDING = [
  (r"/kernel", P()),
]
