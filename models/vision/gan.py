"""A convolutional generator and discriminator of images.

The shape legend is in models/layers/basic.py; images are B, height, width, C.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P

from models import Model, pure
from models.layers.basic import Conv, Dense, float_dtype


class Gan(NamedTuple):
  """The two players.

  generator: z_BZ -> image_BHWC in [-1, 1].
  discriminator: image_BHWC -> logits_B, large for images judged real.
  latent: Z, the size of the generator's normal noise.
  num_classes: if not 0, both also take label_B.
  styles: whether the generator has the arguments and methods of that of
    models/vision/stylegan2.py.
  """

  generator: Model
  discriminator: Model
  latent: int
  num_classes: int = 0
  styles: bool = False


class Generator(nnx.Module):
  """A dense layer to a small image, which is doubled up to the full size."""

  def __init__(self, *, image_size, channels, latent, width, rngs, **common):
    self.start, doublings = pyramid(image_size)
    self.dtype = common["dtype"]
    # The last of `widths` holds the four pixels that each position becomes.
    widths = [width * 2**level for level in reversed(range(doublings))]
    self.dense = Dense(latent, self.start**2 * widths[0], rngs=rngs, **common)
    self.convs = nnx.List(
      Conv(inputs, 4 * outputs, 3, rngs=rngs, **common)
      for inputs, outputs in zip(widths, [*widths[1:], channels], strict=True)
    )

  def __call__(self, z_BZ):
    """image_BHWC in [-1, 1], float32."""
    x = self.dense(z_BZ)
    x = x.reshape(x.shape[0], self.start, self.start, -1)
    for conv in self.convs:
      x = depth_to_space(conv(jax.nn.relu(pixel_norm(x))))
    return jnp.tanh(x.astype(jnp.float32))


class Discriminator(nnx.Module):
  """Convolutions of stride 2 down to a small image, then a dense layer."""

  def __init__(self, *, image_size, channels, width, rngs, **common):
    start, halvings = pyramid(image_size)
    widths = [width * 2**level for level in range(halvings)]
    self.convs = nnx.List(
      Conv(inputs, outputs, 4, 2, padding=1, rngs=rngs, **common)
      for inputs, outputs in zip([channels, *widths[:-1]], widths, strict=True)
    )
    self.head = Dense(start**2 * widths[-1], 1, rngs=rngs, **common)

  def __call__(self, image_BHWC):
    """logits_B, float32."""
    x = image_BHWC
    for conv in self.convs:
      x = jax.nn.leaky_relu(conv(x), 0.2)
    return self.head(x.reshape(x.shape[0], -1))[:, 0].astype(jnp.float32)


def pixel_norm(x: jax.Array) -> jax.Array:
  """Each pixel's channels divided by their root mean square; float32 inside."""
  y = x.astype(jnp.float32)
  y *= jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + 1e-8)
  return y.astype(x.dtype)


def depth_to_space(x: jax.Array) -> jax.Array:
  """[B, H, W, 4 C] -> [B, 2 H, 2 W, C]: each pixel becomes 2 x 2."""
  B, H, W, C = x.shape
  x = x.reshape(B, H, W, 2, 2, C // 4)
  return x.swapaxes(2, 3).reshape(B, 2 * H, 2 * W, C // 4)


def gan(
  *,
  image_size: int = 28,
  channels: int = 1,
  latent: int = 64,
  width: int = 32,
  dtype: str = "float32",
  param_dtype: str = "float32",
) -> Gan:
  """A generator and a discriminator after DCGAN (arXiv:1511.06434).

  Kernels are drawn from normal(0.02); the discriminator's convolutions are
  4 x 4 of stride 2 with leaky relu 0.2. Unlike in DCGAN, no output depends on
  other examples of the batch, which gradient penalties require: the generator
  normalizes each pixel (arXiv:1710.10196, section 4.2) instead of using batch
  norm, and the discriminator has no norm. The generator doubles the image by a
  3 x 3 convolution to four times the channels, which are rearranged into pixels
  (arXiv:1609.05158).

  Args:
    image_size: height and width. Halving it must lead to 7 or less, as it does
      for 28, 32 and 64.
    channels: C of the images.
    latent: Z.
    width: channels at half the image's size; doubled at each halving.
    dtype: of the computation.
    param_dtype: of the parameters.

  Raises:
    ValueError: the image size does not halve to 7 or less, or a dtype is
      unknown.
  """
  pyramid(image_size)
  common = {
    "image_size": image_size,
    "channels": channels,
    "width": width,
    "dtype": float_dtype("dtype", dtype),
    "param_dtype": float_dtype("param_dtype", param_dtype),
  }
  return Gan(
    pure(lambda rngs: Generator(latent=latent, rngs=rngs, **common)),
    pure(lambda rngs: Discriminator(rngs=rngs, **common)),
    latent,
  )


def pyramid(image_size: int) -> tuple[int, int]:
  """(the smallest size, the number of halvings that lead to it).

  Raises:
    ValueError: the size does not halve to 7 or less.
  """
  size, halvings = image_size, 0
  while size > 7 and size % 2 == 0:
    size, halvings = size // 2, halvings + 1
  if size > 7 or not halvings:
    raise ValueError(
      f"image_size = {image_size} must halve to at most 7, as 28, 32, 64 do"
    )
  return size, halvings


SHARDING = [
  (r"dense/kernel", P(None, "tensor")),
  (r"convs/\d+/kernel", P(None, None, None, "tensor")),
]
