"""A one-stage detector: a CSP backbone, a pyramid and a decoupled head.

The shape legend is in models/layers/basic.py; images are B, height, width, C.
A is a prediction: a cell of a level, or with anchors one of its anchors.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P

from models import Model, pure
from models.layers.basic import (
  BatchNorm,
  Conv,
  GroupNorm,
  along_last,
  choose,
  float_dtype,
)

NORMS = {"group": GroupNorm, "batch": BatchNorm}
STRIDES = (8, 16, 32)
# The probability of each class at the beginning (arXiv:1708.02002, 3.3).
_PRIOR = 0.01
# The distance to a side at the beginning, in cells.
_SIDE = 2.0


class ConvNorm(nnx.Module):
  """silu(norm(conv(x)))."""

  def __init__(self, inputs, outputs, size, stride=1, *, norm, rngs, **common):
    self.conv = Conv(
      inputs,
      outputs,
      size,
      stride,
      bias=False,
      kernel_init=nnx.initializers.he_normal(),
      rngs=rngs,
      **common,
    )
    self.norm = NORMS[norm](outputs, param_dtype=common["param_dtype"])

  def __call__(self, x_BHWC):
    """Returns [B, H / stride, W / stride, outputs]."""
    return jax.nn.silu(self.norm(self.conv(x_BHWC)))


class Bottleneck(nnx.Module):
  """Two convolutions, and with `add` their input."""

  def __init__(self, width, add, **common):
    self.first = ConvNorm(width, width, 3, **common)
    self.second = ConvNorm(width, width, 3, **common)
    self.add = add

  def __call__(self, x_BHWC):
    """Returns the shape of x."""
    y_BHWC = self.second(self.first(x_BHWC))
    return x_BHWC + y_BHWC if self.add else y_BHWC


class Partial(nnx.Module):
  """A cross-stage partial block: half of the channels pass bottlenecks.

  The outputs of all bottlenecks are joined, as in YOLOv8's C2f.
  """

  def __init__(self, inputs, outputs, depth, add, **common):
    half = max(1, outputs // 2)
    self.enter = ConvNorm(inputs, 2 * half, 1, **common)
    self.blocks = nnx.List(
      Bottleneck(half, add, **common) for _ in range(depth)
    )
    self.leave = ConvNorm((2 + depth) * half, outputs, 1, **common)

  def __call__(self, x_BHWC):
    """Returns [B, H, W, outputs]."""
    parts = jnp.split(self.enter(x_BHWC), 2, axis=-1)
    for block in self.blocks:
      parts.append(block(parts[-1]))
    return self.leave(jnp.concatenate(parts, axis=-1))


class Pooled(nnx.Module):
  """Joins the maxima of windows of 5, 9 and 13 pixels (SPPF)."""

  def __init__(self, width, **common):
    half = max(1, width // 2)
    self.enter = ConvNorm(width, half, 1, **common)
    self.leave = ConvNorm(4 * half, width, 1, **common)

  def __call__(self, x_BHWC):
    """Returns the shape of x."""
    parts = [self.enter(x_BHWC)]
    for _ in range(3):
      parts.append(nnx.max_pool(parts[-1], (5, 5), padding="SAME"))
    return self.leave(jnp.concatenate(parts, axis=-1))


class Backbone(nnx.Module):
  """Features at `strides`, half of which are the factors of `width`.

  With `most`, no level has more channels.
  """

  def __init__(
    self, channels, width, depth, *, strides=STRIDES, most=None, **common
  ):
    self.levels = len(strides)
    sizes = widths(width, strides[-1].bit_length() - 1, most)
    self.stem = ConvNorm(channels, sizes[0], 3, 2, **common)
    pairs = list(zip(sizes[:-1], sizes[1:], strict=True))
    self.down = nnx.List(ConvNorm(*pair, 3, 2, **common) for pair in pairs)
    self.stages = nnx.List(
      Partial(size, size, n * depth, True, **common)
      for size, n in zip(sizes[1:], (1, 2, 2, 1), strict=False)
    )
    self.pooled = Pooled(sizes[-1], **common)

  def __call__(self, x_BHWC):
    """Returns a list of an array for each stride, the finest first."""
    x, found = self.stem(x_BHWC), []
    for down, stage in zip(self.down, self.stages, strict=True):
      x = stage(down(x))
      found.append(x)
    return [*found[-self.levels : -1], self.pooled(found[-1])]


def widths(width: int, count: int, most: int | None = None) -> list[int]:
  """The channels at a half, a quarter, … of the size, at most `most`."""
  sizes = [width * 2**i for i in range(count)]
  return sizes if most is None else [min(size, most) for size in sizes]


class Pyramid(nnx.Module):
  """Carries features down to the finest level, and up again (PAN-FPN)."""

  def __init__(self, sizes, depth, **common):
    fine, middle, coarse = sizes

    def part(inputs, outputs):
      return Partial(inputs, outputs, depth, False, **common)

    self.to_middle = part(coarse + middle, middle)
    self.to_fine = part(middle + fine, fine)
    self.from_fine = ConvNorm(fine, fine, 3, 2, **common)
    self.mix_middle = part(fine + middle, middle)
    self.from_middle = ConvNorm(middle, middle, 3, 2, **common)
    self.mix_coarse = part(middle + coarse, coarse)

  def __call__(self, features):
    """Returns three arrays of the shapes of `features`."""
    fine, middle, coarse = features
    middle = self.to_middle(_joined(doubled(coarse), middle))
    fine = self.to_fine(_joined(doubled(middle), fine))
    middle = self.mix_middle(_joined(self.from_fine(fine), middle))
    coarse = self.mix_coarse(_joined(self.from_middle(middle), coarse))
    return fine, middle, coarse


def _joined(a_BHWC, b_BHWC):
  return jnp.concatenate([a_BHWC, b_BHWC], axis=-1)


def doubled(x_BHWC):
  """Every pixel becomes four."""
  B, H, W, C = x_BHWC.shape
  x = jnp.broadcast_to(x_BHWC[:, :, None, :, None], (B, H, 2, W, 2, C))
  return x.reshape(B, 2 * H, 2 * W, C)


class Branch(nnx.Module):
  """Two convolutions and a projection, whose bias begins at `start`."""

  def __init__(self, inputs, width, outputs, start, *, rngs, **common):
    self.convs = nnx.List(
      ConvNorm(size, width, 3, rngs=rngs, **common) for size in (inputs, width)
    )
    common.pop("norm")
    self.out = Conv(width, outputs, 1, rngs=rngs, **common)
    self.out.bias[...] += start

  def __call__(self, x_BHWC):
    """Returns [B, H, W, outputs] in float32."""
    for conv in self.convs:
      x_BHWC = conv(x_BHWC)
    return self.out(x_BHWC).astype(jnp.float32)


class Yolo(nnx.Module):
  """Backbone, pyramid, and a head for each level; see `yolo`."""

  def __init__(
    self, *, num_classes, channels, width, depth, most, head, sides_head, bins,
    anchors, **common,
  ):  # fmt: skip
    sizes = widths(width, 5, most)[2:]
    self.bins, self.anchors, self.num_classes = bins, anchors, num_classes
    self.dtype = common["dtype"]
    self.backbone = Backbone(channels, width, depth, most=most, **common)
    self.pyramid = Pyramid(sizes, depth, **common)
    each = len(anchors[0]) if anchors else 1
    prior = math.log(_PRIOR / (1 - _PRIOR))
    # softplus(start) is _SIDE; a distribution over bins begins uniform.
    start = 0.0 if bins or anchors else math.log(math.expm1(_SIDE))
    self.classes, self.sides = (
      nnx.List(
        Branch(size, inner, each * outputs, first, **common) for size in sizes
      )
      for inner, outputs, first in (
        (head, num_classes, prior),
        (sides_head or head, 4 * max(bins, 1), start),
      )
    )

  def __call__(self, image_BHWC):
    """See `yolo`."""
    _, H, W, _ = image_BHWC.shape
    room = ((0, 0), (0, -H % 32), (0, -W % 32), (0, 0))
    x_BHWC = jnp.pad(image_BHWC.astype(self.dtype), room)
    levels = self.pyramid(self.backbone(x_BHWC))
    found = []
    for i, x_BHWC in enumerate(levels):
      logits = self.classes[i](x_BHWC)
      sides = self.sides[i](x_BHWC)
      found.append(self.decoded(i, logits, sides))
    return {
      name: jnp.concatenate([each[name] for each in found], axis=axis)
      for name, axis in (
        ("logits", 1),
        ("boxes", 1),
        ("bins", 1),
        ("points", 0),
        ("strides", 0),
      )
      if name in found[0]
    }

  def decoded(self, level, logits_BHWC, sides_BHWC):
    """The part of the result that is that of a level."""
    B, h, w, _ = logits_BHWC.shape
    stride = STRIDES[level]
    each = len(self.anchors[level]) if self.anchors else 1
    x_HW, y_HW = jnp.meshgrid(jnp.arange(w), jnp.arange(h))
    cells = jnp.stack([x_HW, y_HW], -1).reshape(-1, 1, 2).astype(jnp.float32)
    cells_A2 = jnp.broadcast_to(cells, (h * w, each, 2)).reshape(-1, 2)
    points_A2 = (cells_A2 + 0.5) * stride
    raw = sides_BHWC.reshape(B, h * w * each, 4, -1)
    found = {
      "logits": logits_BHWC.reshape(B, -1, self.num_classes),
      "points": points_A2,
      "strides": jnp.full(len(points_A2), stride, jnp.float32),
    }
    if self.anchors:
      sizes = jnp.asarray(self.anchors[level], jnp.float32)[None]
      sizes_A2 = jnp.broadcast_to(sizes, (h * w, each, 2)).reshape(-1, 2)
      shift = jax.nn.sigmoid(raw[..., :2, 0])
      centre = (cells_A2[None] + shift) * stride
      half = sizes_A2[None] * jnp.exp(jnp.clip(raw[..., 2:, 0], -8, 8)) / 2
      low, high = centre - half, centre + half
    else:
      if self.bins:
        found["bins"] = raw
        places = along_last(jnp.arange(self.bins, dtype=jnp.float32), 4)
        sides = (jax.nn.softmax(raw) * places).sum(-1)
      else:
        sides = jax.nn.softplus(raw[..., 0])
      low = points_A2[None] - sides[..., :2] * stride
      high = points_A2[None] + sides[..., 2:] * stride
    return found | {"boxes": jnp.concatenate([low, high], -1)}


def yolo(
  *,
  num_classes: int,
  channels: int,
  width: int = 16,
  depth: int = 1,
  most: int | None = None,
  head: int = 64,
  sides_head: int | None = None,
  bins: int = 0,
  anchors: Sequence[Sequence[Sequence[float]]] = (),
  norm: str = "group",
  dtype: str = "float32",
  param_dtype: str = "float32",
) -> Model:
  """A one-stage detector in the manner of YOLOX and YOLOv8.

  image_BHWC -> {"logits": [B, A, C], "boxes": [B, A, 4] in pixels of the image,
  "points": [A, 2], the centres (x, y) of the cells in pixels, "strides": [A]},
  all float32, and with `bins` "bins": [B, A, 4, bins], logits of the distances
  to the sides. The levels have strides 8, 16 and 32, the finest first, and the
  cells of a level are in rows. An image of any size is padded with zeros at its
  right and lower side to a multiple of 32.

  The anchor-free decoupled head is that of YOLOX (Ge et al., 2021,
  arXiv:2107.08430); the blocks are those that Jocher et al. (2023) call C2f in
  YOLOv8, whose size n has width 16, depth 1, and heads of 64 channels; the size
  l has width 64, depth 3, most 512, head 256, sides_head 64 and 16 bins.

  Args:
    num_classes: C of the logits.
    channels: C of the images.
    width: channels at half the size; they double at each halving.
    most: the largest number of channels of a level, if there is one.
    depth: factor of the numbers of bottlenecks, which are 1, 2, 2 and 1 in the
      backbone and 1 in the pyramid.
    head: channels of the convolutions of the head.
    sides_head: those of its branch for the sides of boxes, if they are others.
    bins: the number of distances of a distribution focal loss
      (arXiv:2006.04388), from 0 cells on, whose mean is predicted; 0 predicts
      the distance itself.
    anchors: ((width, height), …) in pixels for each of the three levels, as
      many for each; a box is then predicted from an anchor, as in YOLOv3
      (arXiv:1804.02767). () predicts distances from the cell's centre.
    norm: "group", or "batch", whose statistics are those of a whole batch.
    dtype: of the computation.
    param_dtype: of the parameters.

  Raises:
    ValueError: an argument is wrong.
  """
  sizes = tuple(tuple(tuple(pair) for pair in level) for level in anchors)
  if sizes and (len(sizes) != 3 or len({len(level) for level in sizes}) != 1):
    raise ValueError(
      "anchors: three levels with as many (width, height) each are needed"
    )
  if sizes and bins:
    raise ValueError(f"bins={bins}: with anchors there are none; set bins=0")
  config = {
    "num_classes": num_classes,
    "channels": channels,
    "width": width,
    "depth": depth,
    "most": most,
    "head": head,
    "sides_head": sides_head,
    "bins": bins,
    "anchors": sizes,
    "norm": choose("norm", norm, NORMS),
    "dtype": float_dtype("dtype", dtype),
    "param_dtype": float_dtype("param_dtype", param_dtype),
  }
  return pure(lambda rngs: Yolo(rngs=rngs, **config))


SHARDING = [(r"conv/kernel", P(None, None, None, "tensor"))]
