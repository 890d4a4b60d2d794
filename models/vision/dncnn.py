"""Plain convolutional denoisers, without changes of resolution inside.

The shape legend is in models/layers/basic.py; images are B, height, width, C.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P

from models import Model, pure
from models.layers.basic import BatchNorm, Conv, float_dtype
from models.vision.gan import depth_to_space

_HE = nnx.initializers.he_normal()


class PlainDenoiser(nnx.Module):
  """Convolutions, each but the last followed by relu. See `dncnn`."""

  def __init__(
    self,
    *,
    channels,
    depth,
    width,
    halved,
    level_map,
    batchnorm,
    rngs,
    **common,
  ):
    self.halved, self.level_map = halved, level_map
    area = 4 if halved else 1
    conv = {"kernel_init": _HE, "rngs": rngs, **common}
    self.first = Conv(area * channels + level_map, width, 3, **conv)
    self.convs = nnx.List(
      Conv(width, width, 3, bias=not batchnorm, **conv)
      for _ in range(depth - 2)
    )
    self.norms = nnx.List(
      BatchNorm(width, param_dtype=common["param_dtype"])
      for _ in range((depth - 2) * batchnorm)
    )
    # Small, so that learning begins at the image as it is.
    small = {"kernel_init": nnx.initializers.normal(1e-3)}
    self.last = Conv(width, area * channels, 3, **conv | small)

  def __call__(self, image_BHWC, level_B=None):
    """Returns the shape of the images, float32."""
    height, width = image_BHWC.shape[1:3]
    x = image_BHWC
    if self.halved:
      even = ((0, 0), (0, height % 2), (0, width % 2), (0, 0))
      x = space_to_depth(jnp.pad(x, even, mode="edge"))
    if self.level_map:
      level_B111 = (level_B / 127.5)[:, None, None, None]
      level_BHW1 = jnp.broadcast_to(level_B111, (*x.shape[:3], 1))
      x = jnp.concatenate([x, level_BHW1.astype(x.dtype)], axis=-1)
    x = jax.nn.relu(self.first(x))
    for i, conv in enumerate(self.convs):
      x = conv(x)
      x = jax.nn.relu(self.norms[i](x) if self.norms else x)
    x = self.last(x)
    if self.halved:
      x = depth_to_space(x)[:, :height, :width]
    return x.astype(jnp.float32)


def space_to_depth(x: jax.Array) -> jax.Array:
  """[B, 2 H, 2 W, C] -> [B, H, W, 4 C], the inverse of depth_to_space."""
  B, H, W, C = x.shape
  x = x.reshape(B, H // 2, 2, W // 2, 2, C)
  return x.swapaxes(2, 3).reshape(B, H // 2, W // 2, 4 * C)


def dncnn(
  *,
  channels: int,
  depth: int = 17,
  width: int = 64,
  halved: bool = False,
  level_map: bool = False,
  batchnorm: bool = True,
  dtype: str = "float32",
  param_dtype: str = "float32",
) -> Model:
  """A denoiser after DnCNN (Zhang et al., 2017, arXiv:1608.03981).

  image_BHWC, level_B -> noise_BHWC in float32. The published depth is 17 for
  one level of noise and 20 for a range of levels; the model does not read
  level_B unless it has a map of levels. Convolutions are 3 x 3 with zero
  padding, so that an output depends on the `depth` pixels around it, or on
  2 `depth` if the image is halved. Any height and width.

  Args:
    channels: C of the images.
    depth: number of convolutions.
    width: channels inside.
    halved: whether 2 x 2 pixels become the channels of one, as in FFDNet: a
      quarter of the computation, and a doubled field of view.
    level_map: whether the level of the noise is a further channel, as in
      FFDNet.
    batchnorm: whether the inner convolutions are followed by batch norm.
    dtype: of the computation.
    param_dtype: of the parameters.

  Raises:
    ValueError: the depth is below 3, or a dtype is unknown.
  """
  if depth < 3:
    raise ValueError(f"depth = {depth} is below 3")
  config = {
    "channels": channels,
    "depth": depth,
    "width": width,
    "halved": halved,
    "level_map": level_map,
    "batchnorm": batchnorm,
    "dtype": float_dtype("dtype", dtype),
    "param_dtype": float_dtype("param_dtype", param_dtype),
  }
  return pure(lambda rngs: PlainDenoiser(rngs=rngs, **config))


SHARDING = [(r"(first|convs/\d+)/kernel", P(None, None, None, "tensor"))]
