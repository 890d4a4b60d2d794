"""Convolutional autoencoders of images; see also vqvae.py.

The shape legend is in models/layers/basic.py; images are B, height, width, C,
and latents z_BHWZ have a height and width of their own.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P

from models import Model, pure
from models.layers import image_blocks as blocks
from models.layers.basic import Conv, GroupNorm, float_dtype


class Encoder(nnx.Module):
  """Residual blocks and halvings, then a convolution to `outputs`."""

  def __init__(self, *, channels, outputs, widths, depth, groups, **common):
    layer = {"kernel_init": blocks.INIT, **common}
    normed = {"groups": groups, "eps": 1e-6, **common}
    self.first = Conv(channels, widths[0], 3, **layer)
    self.blocks, self.halve, x = nnx.List(), nnx.List(), widths[0]
    for i, width in enumerate(widths):
      for _ in range(depth):
        self.blocks.append(blocks.ResidualBlock(x, width, **normed))
        x = width
      if i + 1 < len(widths):
        self.halve.append(blocks.Halve(x, after=True, **common))
    self.depth = depth
    self.middle = blocks.Middle(x, heads=1, **normed)
    self.norm = GroupNorm(
      x, groups=groups, eps=1e-6, param_dtype=common["param_dtype"]
    )
    self.last = Conv(x, outputs, 3, **layer)
    self.out = Conv(outputs, outputs, 1, **layer)

  def __call__(self, image_BHWC):
    """Returns [B, h, w, outputs], float32."""
    x = self.first(image_BHWC)
    for i, block in enumerate(self.blocks):
      x = block(x)
      at, rest = divmod(i + 1, self.depth)
      if not rest and at <= len(self.halve):
        x = self.halve[at - 1](x)
    x = self.last(jax.nn.silu(self.norm(self.middle(x))))
    return self.out(x).astype(jnp.float32)


class Decoder(nnx.Module):
  """Residual blocks and doublings, then a convolution to `outputs`."""

  def __init__(self, *, latent, outputs, widths, depth, groups, **common):
    layer = {"kernel_init": blocks.INIT, **common}
    normed = {"groups": groups, "eps": 1e-6, **common}
    widths = tuple(reversed(widths))
    self.input = Conv(latent, latent, 1, **layer)
    self.first = Conv(latent, widths[0], 3, **layer)
    self.middle = blocks.Middle(widths[0], heads=1, **normed)
    self.blocks, self.double, x = nnx.List(), nnx.List(), widths[0]
    for i, width in enumerate(widths):
      for _ in range(depth + 1):
        self.blocks.append(blocks.ResidualBlock(x, width, **normed))
        x = width
      if i + 1 < len(widths):
        self.double.append(blocks.Double(x, **common))
    self.depth = depth + 1
    self.norm = GroupNorm(
      x, groups=groups, eps=1e-6, param_dtype=common["param_dtype"]
    )
    self.last = Conv(x, outputs, 3, **layer)

  def __call__(self, z_BHWZ):
    """Returns [B, H, W, outputs], float32."""
    x = self.middle(self.first(self.input(z_BHWZ)))
    for i, block in enumerate(self.blocks):
      x = block(x)
      at, rest = divmod(i + 1, self.depth)
      if not rest and at <= len(self.double):
        x = self.double[at - 1](x)
    return self.last(jax.nn.silu(self.norm(x))).astype(jnp.float32)


class Autoencoder(nnx.Module):
  """An encoder to Gaussians, and a decoder. See `vae`."""

  def __init__(self, *, channels, latent, **common):
    self.encoder = Encoder(channels=channels, outputs=2 * latent, **common)
    self.decoder = Decoder(latent=latent, outputs=channels, **common)

  def __call__(self, image_BHWC):
    """The decoded means of the latents."""
    return self.decode(self.encode(image_BHWC)[0])

  def encode(self, image_BHWC):
    """(mean, log of the variance), each [B, h, w, Z], float32."""
    mean, log_variance = jnp.split(self.encoder(image_BHWC), 2, axis=-1)
    # Beyond these bounds exp() leaves the range of useful numbers.
    return mean, jnp.clip(log_variance, -30.0, 20.0)

  def decode(self, z_BHWZ):
    """The decoder's outputs [B, H, W, C], float32."""
    return self.decoder(z_BHWZ)


def sizes(channels, widths, depth, groups, dtype, param_dtype) -> dict:
  """The checked arguments that autoencoders share, for their modules.

  Raises:
    ValueError: a width is not a multiple of the groups, or a dtype is unknown.
  """
  for width in widths:
    if width % groups:
      raise ValueError(f"width {width} is not a multiple of groups={groups}")
  return {
    "channels": channels,
    "widths": tuple(widths),
    "depth": depth,
    "groups": groups,
    "dtype": float_dtype("dtype", dtype),
    "param_dtype": float_dtype("param_dtype", param_dtype),
  }


def vae(
  *,
  channels: int,
  latent: int = 4,
  widths: Sequence[int] = (16, 32, 32),
  depth: int = 1,
  groups: int = 8,
  dtype: str = "float32",
  param_dtype: str = "float32",
) -> Model:
  """A variational autoencoder, image_BHWC -> the decoder's outputs, float32.

  Kingma and Welling, 2014, arXiv:1312.6114, with the architecture of latent
  diffusion (Rombach et al., 2022, arXiv:2112.10752): residual blocks with group
  norm, and attention at the smallest size. Each width after the first halves
  the image, so height and width must be multiples of that power of 2. Methods:
  "encode", image_BHWC -> (mean, log of the variance) of z_BHWZ, and "decode",
  z_BHWZ -> the outputs.

  Args:
    channels: C of the images.
    latent: Z.
    widths: channels at the full size, at half of it, and so on.
    depth: residual blocks at each size of the encoder; the decoder has one
      more.
    groups: of group norm.
    dtype: of the computation.
    param_dtype: of the parameters.

  Raises:
    ValueError: a width is not a multiple of the groups, or a dtype is unknown.
  """
  config = sizes(channels, widths, depth, groups, dtype, param_dtype)
  return pure(lambda rngs: Autoencoder(latent=latent, rngs=rngs, **config))


SHARDING = [(r"(conv1|first)/kernel", P(None, None, None, "tensor"))]
