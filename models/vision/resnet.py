"""Residual networks: versions 1.5 and 2, their stems, shortcuts and widths.

The shape legend is in models/layers/basic.py; images are B, height, width, C.
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
  Dense,
  choose,
  float_dtype,
)
from models.layers.residual import ConvNorm, ResidualBlock, Stem
from models.layers.stochastic_depth import rates_of_depth

# Blocks in each of the four stages, and whether they are bottlenecks.
DEPTHS = {
  18: ((2, 2, 2, 2), False),
  34: ((3, 4, 6, 3), False),
  50: ((3, 4, 6, 3), True),
  101: ((3, 4, 23, 3), True),
  152: ((3, 8, 36, 3), True),
}
# Size and stride of the convolutions, and their share of the width.
STEMS = {
  "imagenet": ((7, 2, 1.0),),
  "deep": ((3, 2, 0.5), (3, 1, 0.5), (3, 1, 1.0)),
  "cifar": ((3, 1, 1.0),),
  "half": ((3, 2, 1.0),),
  "deep_half": ((3, 1, 0.5), (3, 2, 1.0)),
}
POOLED_STEMS = ("imagenet", "deep")
SHORTCUTS = ("conv", "pool")
VERSIONS = (1, 2)
NORMS = ("batch", "frozen")
OUTPUT_STRIDES = (None, 8, 16, 32)


class ResNet(nnx.Module):
  """Images to logits. `resnet` documents the arguments."""

  def __init__(
    self,
    *,
    num_classes,
    channels,
    counts,
    bottleneck,
    stem,
    width,
    stem_width,
    version,
    drop_path,
    block,
    norm,
    dtype,
    output_stride=None,
    **common,
  ):
    head = common | {"dtype": dtype}
    common = head | {"frozen": norm == "frozen"}
    self.pool = stem in POOLED_STEMS
    self.dtype, self.counts = dtype, tuple(counts)
    shapes = STEMS[stem]
    if version == 1 and len(shapes) == 1:
      self.stem = ConvNorm(channels, stem_width, *shapes[0][:2], **common)
    else:
      self.stem = Stem(channels, stem_width, shapes, version=version, **common)
    self.activates = version == 1 and len(shapes) == 1
    blocks, inputs = [], stem_width
    rates = iter(rates_of_depth(drop_path, sum(counts)))
    reached = math.prod(stride for _, stride, _ in shapes)
    reached, dilation = reached * (2 if self.pool else 1), 1
    for stage, count in enumerate(counts):
      for index in range(count):
        stride = 2 if stage > 0 and index == 0 else 1
        entry = dilation
        if stride > 1 and reached == output_stride:
          stride, dilation = 1, 2 * dilation
        reached *= stride
        outputs = width * 2**stage
        blocks.append(
          ResidualBlock(
            inputs,
            outputs,
            stride,
            bottleneck,
            version=version,
            drop_path=next(rates),
            dilations=(entry, dilation),
            **block,
            **common,
          )
        )
        inputs = outputs * (4 if bottleneck else 1)
    self.blocks = nnx.List(blocks)
    self.norm = nnx.data(
      BatchNorm(
        inputs, frozen=common["frozen"], param_dtype=common["param_dtype"]
      )
      if version == 2
      else None
    )
    init = nnx.initializers.lecun_normal()
    self.head = nnx.data(
      Dense(inputs, num_classes, kernel_init=init, **head)
      if num_classes
      else None
    )

  def __call__(self, image_BHWC):
    """logits_BC, float32."""
    return self.head(self.features(image_BHWC)).astype("float32")

  def features(self, image_BHWC):
    """x_BF, the mean over pixels of the last block's activations."""
    x = self.stages(image_BHWC)[-1]
    return x.astype(jnp.float32).mean(axis=(1, 2)).astype(self.dtype)

  def stages(self, image_BHWC) -> list[jax.Array]:
    """The activations after each stage, for detectors and segmenters."""
    x = self.stem(image_BHWC.astype(self.dtype))
    x = jax.nn.relu(x) if self.activates else x
    if self.pool:
      x = nnx.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
    found, blocks = [], iter(self.blocks)
    for count in self.counts:
      for _ in range(count):
        x = next(blocks)(x)
      found.append(x)
    if self.norm is not None:
      found[-1] = jax.nn.relu(self.norm(x))
    return found


def body(
  *, channels, counts, bottleneck, width, norm="batch", output_stride=None,
  **common,
):  # fmt: skip
  """The ResNet of version 1.5 without its last layer, for other models.

  `common` has dtype, param_dtype and rngs; see `resnet` for the rest.
  """
  return ResNet(
    num_classes=None,
    channels=channels,
    counts=counts,
    bottleneck=bottleneck,
    stem="imagenet",
    width=width,
    stem_width=width,
    version=1,
    drop_path=0.0,
    block={},
    norm=norm,
    output_stride=output_stride,
    **common,
  )


def resnet(
  *,
  num_classes: int,
  channels: int = 3,
  depth: int = 18,
  blocks: Sequence[int] | None = None,
  bottleneck: bool | None = None,
  version: int = 1,
  stem: str = "imagenet",
  shortcut: str = "conv",
  width: int = 64,
  stem_width: int | None = None,
  inner: float = 1.0,
  zero_init: bool = False,
  norm: str = "batch",
  dropout: float = 0.0,
  drop_path: float = 0.0,
  output_stride: int | None = None,
  dtype: str = "float32",
  param_dtype: str = "float32",
) -> Model:
  """A residual network, image_BHWC -> logits_BC in float32.

  Version 1.5 of arXiv:1512.03385, in which a bottleneck's 3 x 3 convolution has
  the stride; this and the symmetric padding are as in PyTorch. Batch norm's
  moving averages keep 0.9 of their value at each step; its epsilon is 1e-5. The
  moving variance averages the biased variance of the batch; PyTorch averages
  the unbiased one, which is n / (n - 1) times as large. The method "features"
  returns x_BF, the pooled activations before the last layer; "stages" returns
  the activations of each stage, [B, height, width, C].

  A ResNet-D (arXiv:1812.01187) has stem "deep" and shortcut "pool"; the wide
  ResNet-50-2 has `inner` 2; the wide network WRN-28-10 (arXiv:1605.07146) has
  blocks (4, 4, 4), no bottleneck, version 2, stem "cifar", width 160 and
  stem_width 16.

  Args:
    num_classes: C of the logits.
    channels: C of the images.
    depth: 18 or 34 (two 3 x 3 convolutions a block); 50, 101 or 152
      (bottlenecks). It sets the two arguments below where they are None.
    blocks: number of blocks of each stage; each stage but the first halves
      height and width and doubles the channels.
    bottleneck: whether a block is 1 x 1, 3 x 3 and 1 x 1 convolutions, and four
      times as wide outside.
    version: 1, norm after each convolution; or 2, norm and relu before it
      (arXiv:1603.05027).
    stem: "imagenet", a 7 x 7 convolution and a max pool, both of stride 2;
      "deep", three 3 x 3 convolutions in place of the 7 x 7; "cifar", a
      3 x 3 convolution of stride 1 and no pool; "half", the same of stride 2;
      or "deep_half", two 3 x 3 convolutions, of which the second has stride 2.
    shortcut: "conv", a 1 x 1 convolution with the block's stride; or "pool", a
      mean over 2 x 2 pixels in place of the stride.
    width: channels of the stem and of the first stage's 3 x 3 convolutions.
    stem_width: channels of the stem, if they are others.
    inner: factor of the channels inside bottlenecks.
    zero_init: whether each block begins as its shortcut: the scale of its last
      norm (version 2: its last kernel) is 0 at first (arXiv:1706.02677).
    norm: "batch"; or "frozen", batch norm by the running averages in training
      too, whose scales and biases are not trained, as detectors have it.
    dropout: rate, before the last convolution of each block.
    drop_path: rate of stochastic depth in the last block (arXiv:1603.09382);
      those of the other blocks rise linearly from 0.
    output_stride: 8 or 16 keeps the later stages at that part of the size, as
      segmenters do: they dilate their convolutions instead of having strides.
    dtype: of the computation.
    param_dtype: of the parameters.

  Raises:
    ValueError: the depth, another choice or a dtype is unknown.
  """
  counts, has_bottlenecks = DEPTHS[choose("depth", depth, DEPTHS)]
  config = {
    "num_classes": num_classes,
    "channels": channels,
    "counts": tuple(blocks or counts),
    "bottleneck": has_bottlenecks if bottleneck is None else bottleneck,
    "version": choose("version", version, VERSIONS),
    "stem": choose("stem", stem, STEMS),
    "width": width,
    "stem_width": stem_width or width,
    "drop_path": drop_path,
    "output_stride": choose("output_stride", output_stride, OUTPUT_STRIDES),
    "block": {
      "inner": inner,
      "shortcut": choose("shortcut", shortcut, SHORTCUTS),
      "zero_init": zero_init,
      "dropout": dropout,
    },
    "norm": choose("norm", norm, NORMS),
    "dtype": float_dtype("dtype", dtype),
    "param_dtype": float_dtype("param_dtype", param_dtype),
  }
  return pure(lambda rngs: ResNet(rngs=rngs, **config))


SHARDING = [
  (r"conv/kernel", P(None, None, None, "tensor")),
  (r"head/kernel", P(None, "tensor")),
]
