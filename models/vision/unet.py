"""The U-Net of diffusion models, with a time and a class.

The shape legend is in models/layers/basic.py; images are B, height, width, C.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P

from models import Model, pure
from models.layers import image_blocks as blocks
from models.layers.basic import Conv, Dense, Embedding, GroupNorm, float_dtype


class UNet(nnx.Module):
  """Blocks at halved sizes, whose outputs reach the blocks on the way up."""

  def __init__(
    self, *, num_classes, channels, widths, depth, attention, heads_of, groups,
    dropout, rngs, dtype, param_dtype,
  ):  # fmt: skip
    kinds = {"dtype": dtype, "param_dtype": param_dtype}
    layer = {"kernel_init": blocks.INIT, "rngs": rngs, **kinds}
    normed = {"groups": groups, "eps": 1e-5, "rngs": rngs, **kinds}
    conditions = 4 * widths[0]
    self.time_size, self.num_classes = widths[0], num_classes
    self.time1 = Dense(widths[0], conditions, **layer)
    self.time2 = Dense(conditions, conditions, **layer)
    self.class_embedding = Embedding(
      num_classes + 1, conditions, rngs=rngs, **kinds
    )
    self.first = Conv(channels, widths[0], 3, **layer)

    def level(inputs, outputs, attends):
      block = {"conditions": conditions, "dropout": dropout, **normed}
      found = [blocks.ResidualBlock(inputs, outputs, **block)]
      if attends:
        heads = max(outputs // heads_of, 1)
        found.append(blocks.PixelAttention(outputs, heads=heads, **normed))
      return nnx.List(found)

    self.down, self.halve, skips, x = nnx.List(), nnx.List(), [widths[0]], 0
    x = widths[0]
    for i, width in enumerate(widths):
      for _ in range(depth):
        self.down.append(level(x, width, i in attention))
        x = width
        skips.append(x)
      if i + 1 < len(widths):
        self.halve.append(blocks.Halve(x, after=False, rngs=rngs, **kinds))
        skips.append(x)
    self.middle = blocks.Middle(
      x,
      heads=max(x // heads_of, 1),
      conditions=conditions,
      dropout=dropout,
      **normed,
    )
    self.up, self.double = nnx.List(), nnx.List()
    for i, width in reversed(list(enumerate(widths))):
      for _ in range(depth + 1):
        self.up.append(level(x + skips.pop(), width, i in attention))
        x = width
      if i:
        self.double.append(blocks.Double(x, rngs=rngs, **kinds))
    self.depth = depth
    self.norm = GroupNorm(x, groups=groups, eps=1e-5, param_dtype=param_dtype)
    zero = {"kernel_init": nnx.initializers.zeros}
    self.last = Conv(x, channels, 3, **layer | zero)

  def __call__(self, image_BHWC, time_B, label_B=None):
    """Returns the shape of the images, float32; see `unet`."""
    x = blocks.waves(time_B, self.time_size)
    condition_BD = self.time2(jax.nn.silu(self.time1(x)))
    if label_B is None:
      label_B = jnp.full(time_B.shape, self.num_classes, jnp.int32)
    condition_BD += self.class_embedding(label_B)

    def through(level, x):
      first, *attends = level
      x = first(x, condition_BD)
      return attends[0](x) if attends else x

    height, width = image_BHWC.shape[1:3]
    x, skips = self.first(_padded(image_BHWC, 2 ** len(self.halve))), []
    skips.append(x)
    for i, level in enumerate(self.down):
      x = through(level, x)
      skips.append(x)
      at, rest = divmod(i + 1, self.depth)
      if not rest and at <= len(self.halve):
        x = self.halve[at - 1](x)
        skips.append(x)
    x = self.middle(x, condition_BD)
    for i, level in enumerate(self.up):
      x = through(level, jnp.concatenate([x, skips.pop()], axis=-1))
      at, rest = divmod(i + 1, self.depth + 1)
      if not rest and at <= len(self.double):
        x = self.double[at - 1](x)
    x = self.last(jax.nn.silu(self.norm(x)))
    return x[:, :height, :width].astype(jnp.float32)


def _padded(x_BHWC, multiple):
  """The image, its last row and column repeated to a multiple in size."""
  more = [(0, -size % multiple) for size in x_BHWC.shape[1:3]]
  return jnp.pad(x_BHWC, ((0, 0), *more, (0, 0)), mode="edge")


def unet(
  *,
  channels: int,
  num_classes: int | None = None,
  widths: Sequence[int] = (32, 64, 64),
  depth: int = 1,
  attention: Sequence[int] = (1, 2),
  head_dim: int = 32,
  groups: int = 8,
  dropout: float = 0.0,
  dtype: str = "float32",
  param_dtype: str = "float32",
) -> Model:
  """The U-Net of DDPM (Ho et al., 2020, arXiv:2006.11239), appendix B.

  image_BHWC, time_B, label_B -> image_BHWC in float32, of any height and width.
  The time is a number from 0 to about 1000, such as a step of a diffusion or a
  level of noise; its embedding, and that of the class, is added in each
  residual block. label_B is int32; num_classes, or None for the whole batch,
  means no class.

  Args:
    channels: C of the images.
    num_classes: number of classes; None for no classes.
    widths: channels at the full size, at half of it, and so on.
    depth: residual blocks at each size on the way down; on the way up there is
      one more.
    attention: places in `widths` whose residual blocks are followed by
      attention among the pixels. The middle always has it.
    head_dim: channels of a head of attention.
    groups: of group norm.
    dropout: rate, within the residual blocks.
    dtype: of the computation.
    param_dtype: of the parameters.

  Raises:
    ValueError: a width is not a multiple of the groups or of the heads.
  """
  for width in widths:
    if width % groups or width % min(head_dim, width):
      raise ValueError(
        f"a width of {width} is not a multiple of groups={groups} and of"
        f" head_dim={head_dim}"
      )
  config = {
    "num_classes": num_classes or 0,
    "channels": channels,
    "widths": tuple(widths),
    "depth": depth,
    "attention": tuple(attention),
    "heads_of": head_dim,
    "groups": groups,
    "dropout": dropout,
    "dtype": float_dtype("dtype", dtype),
    "param_dtype": float_dtype("param_dtype", param_dtype),
  }
  return pure(lambda rngs: UNet(rngs=rngs, **config))


SHARDING = [
  (r"(conv1|first)/kernel", P(None, None, None, "tensor")),
  (r"project/kernel", P(None, "tensor")),
]
