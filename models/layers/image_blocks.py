"""Blocks of convolutional networks that generate images.

They are those of DDPM (Ho et al., 2020, arXiv:2006.11239), which autoencoders
of latent diffusion (arXiv:2112.10752) share. Shapes: models/layers/basic.py.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from models.layers.attention import attention
from models.layers.basic import Conv, Dense, GroupNorm

# Of PyTorch, as in diffusers: it begins with smaller outputs than He or LeCun.
INIT = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class ResidualBlock(nnx.Module):
  """Two convolutions, each after group norm and silu, around a skip.

  With `conditions`, a projection of condition_BD is added to each pixel between
  the two.
  """

  def __init__(
    self,
    inputs: int,
    outputs: int,
    *,
    groups: int,
    eps: float,
    conditions: int = 0,
    dropout: float = 0.0,
    rngs: nnx.Rngs,
    **common,
  ):
    norm = {"eps": eps, "param_dtype": common["param_dtype"]}
    layer = {"kernel_init": INIT, "rngs": rngs, **common}
    self.norm1 = GroupNorm(inputs, groups=groups, **norm)
    self.conv1 = Conv(inputs, outputs, 3, **layer)
    self.project = nnx.data(
      Dense(conditions, outputs, **layer) if conditions else None
    )
    self.norm2 = GroupNorm(outputs, groups=groups, **norm)
    self.dropout = nnx.data(
      nnx.Dropout(dropout, rngs=rngs) if dropout else None
    )
    self.conv2 = Conv(outputs, outputs, 3, **layer)
    self.skip = nnx.data(
      Conv(inputs, outputs, 1, **layer) if inputs != outputs else None
    )

  def __call__(self, x_BHWC, condition_BD=None):
    """Returns [B, H, W, outputs]."""
    y = self.conv1(jax.nn.silu(self.norm1(x_BHWC)))
    if self.project is not None:
      y += self.project(jax.nn.silu(condition_BD))[:, None, None]
    y = jax.nn.silu(self.norm2(y))
    if self.dropout is not None:
      y = self.dropout(y)
    y = self.conv2(y)
    return y + (x_BHWC if self.skip is None else self.skip(x_BHWC))


class PixelAttention(nnx.Module):
  """x + attention among all pixels of the group-normalized x."""

  def __init__(
    self,
    features: int,
    *,
    heads: int,
    groups: int,
    eps: float,
    rngs: nnx.Rngs,
    **common,
  ):
    self.heads = heads
    self.norm = GroupNorm(
      features, groups=groups, eps=eps, param_dtype=common["param_dtype"]
    )
    layer = {"kernel_init": INIT, "rngs": rngs, **common}
    self.query = Dense(features, features, **layer)
    self.key = Dense(features, features, **layer)
    self.value = Dense(features, features, **layer)
    self.out = Dense(features, features, **layer)

  def __call__(self, x_BHWC):
    """Returns the shape of x."""
    B, H, W, C = x_BHWC.shape
    y_BTD = self.norm(x_BHWC).reshape(B, H * W, C)
    q, k, v = (
      project(y_BTD).reshape(B, H * W, self.heads, C // self.heads)
      for project in (self.query, self.key, self.value)
    )
    y_BTD = self.out(attention(q, k, v).reshape(B, H * W, C))
    return x_BHWC + y_BTD.reshape(B, H, W, C)


class Halve(nnx.Module):
  """A convolution of stride 2.

  `after` pads below and to the right only, as autoencoders do; otherwise all
  sides are padded. Both lead from an even size to its half.
  """

  def __init__(self, features: int, *, after: bool, rngs, **common):
    self.after = after
    self.conv = Conv(
      features,
      features,
      3,
      2,
      padding=0 if after else 1,
      kernel_init=INIT,
      rngs=rngs,
      **common,
    )

  def __call__(self, x_BHWC):
    """Returns [B, H / 2, W / 2, C]."""
    if self.after:
      x_BHWC = jnp.pad(x_BHWC, ((0, 0), (0, 1), (0, 1), (0, 0)))
    return self.conv(x_BHWC)


class Double(nnx.Module):
  """Each pixel becomes 2 x 2, and a convolution follows."""

  def __init__(self, features: int, *, rngs, **common):
    self.conv = Conv(
      features, features, 3, kernel_init=INIT, rngs=rngs, **common
    )

  def __call__(self, x_BHWC):
    """Returns [B, 2 H, 2 W, C]."""
    B, H, W, C = x_BHWC.shape
    shape = (B, H, 2, W, 2, C)
    x = jnp.broadcast_to(x_BHWC[:, :, None, :, None], shape)
    return self.conv(x.reshape(B, 2 * H, 2 * W, C))


class Middle(nnx.Module):
  """A residual block, attention, and another residual block."""

  def __init__(
    self, features: int, *, heads: int, conditions=0, dropout=0.0, **common
  ):
    block = {"conditions": conditions, "dropout": dropout, **common}
    self.first = ResidualBlock(features, features, **block)
    self.attention = PixelAttention(features, heads=heads, **common)
    self.second = ResidualBlock(features, features, **block)

  def __call__(self, x_BHWC, condition_BD=None):
    """Returns the shape of x."""
    x_BHWC = self.attention(self.first(x_BHWC, condition_BD))
    return self.second(x_BHWC, condition_BD)


def waves(time_B: jax.Array, size: int, shift: float = 0.0) -> jax.Array:
  """Cosines, then sines, of the times at geometric frequencies; [B, size].

  The frequencies are 10000^(-i / (half - shift)) for i from 0 to half - 1,
  where half is size / 2 (arXiv:1706.03762, section 3.5); float32.
  """
  half = size // 2
  power = jnp.arange(half, dtype=jnp.float32) / (half - shift)
  rate = jnp.exp(-math.log(10_000) * power)
  angle = time_B.astype(jnp.float32)[:, None] * rate[None]
  return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)
