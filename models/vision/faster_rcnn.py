"""A two-stage detector: a pyramid, proposals, and a head for regions.

The shape legend is in models/layers/basic.py; images are B, height, width, C.
A is an anchor, R a region.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import PartitionSpec as P

from models import Model, pure
from models.layers.basic import Conv, Dense, choose, float_dtype
from models.layers.roi_align import level_of, roi_align
from models.vision import resnet
from models.vision.yolo import NORMS, STRIDES, Backbone, doubled

_SMALL = nnx.initializers.normal(0.01)
BACKBONES = ("csp", "resnet")
_STRIDES = [(4, 8, 16, 32)[i:j] for i in range(3) for j in range(i + 2, 5)]


class FeaturePyramid(nnx.Module):
  """FPN (Lin et al., 2017, arXiv:1612.03144): sums from coarse to fine."""

  def __init__(self, sizes, outputs, *, rngs, **common):
    init = nnx.initializers.he_uniform()
    self.lateral = nnx.List(
      Conv(size, outputs, 1, kernel_init=init, rngs=rngs, **common)
      for size in sizes
    )
    self.out = nnx.List(
      Conv(outputs, outputs, 3, kernel_init=init, rngs=rngs, **common)
      for _ in sizes
    )

  def __call__(self, features):
    """Returns arrays of the sizes of `features`, each with `outputs`."""
    found, above = [], None
    for i in reversed(range(len(features))):
      x = self.lateral[i](features[i])
      above = x if above is None else x + doubled(above)
      found.append(self.out[i](above))
    return found[::-1]


class FasterRcnn(nnx.Module):
  """See `faster_rcnn`."""

  def __init__(
    self,
    *,
    num_classes,
    channels,
    width,
    depth,
    features,
    hidden,
    sizes,
    ratios,
    strides,
    norm,
    backbone,
    coarser,
    **common,
  ):
    self.sizes, self.ratios, self.strides = sizes, ratios, strides
    self.num_classes, self.dtype = num_classes, common["dtype"]
    self.coarser = coarser
    made, inputs = _backbone(
      backbone, channels, width, depth, strides, norm=norm, **common
    )
    self.backbone = made
    self.pyramid = FeaturePyramid(inputs, features, **common)
    each = len(sizes[0]) * len(ratios)
    common["kernel_init"] = _SMALL
    self.shared = Conv(features, features, 3, **common)
    self.objectness = Conv(features, each, 1, **common)
    self.shift = Conv(features, 4 * each, 1, **common)
    he = common | {"kernel_init": nnx.initializers.he_normal()}
    self.first = Dense(7 * 7 * features, hidden, **he)
    self.second = Dense(hidden, hidden, **he)
    self.classes = Dense(hidden, num_classes + 1, **common)
    self.codes = Dense(hidden, 4 * num_classes, **common)

  def __call__(self, image_BHWC):
    """The first stage; see `faster_rcnn`."""
    B, H, W, _ = image_BHWC.shape
    least = self.strides[-1]
    room = ((0, 0), (0, -H % least), (0, -W % least), (0, 0))
    x_BHWC = jnp.pad(image_BHWC.astype(self.dtype), room)
    levels = self.pyramid(self._features(x_BHWC))
    strides = list(self.strides)
    if self.coarser:
      levels.append(levels[-1][:, ::2, ::2])
      strides.append(2 * least)
    scores, codes, boxes, of = [], [], [], []
    for i, x in enumerate(levels):
      y = jax.nn.relu(self.shared(x))
      scores.append(self.objectness(y).reshape(B, -1))
      codes.append(self.shift(y).reshape(B, -1, 4))
      grid = anchors(*x.shape[1:3], strides[i], self.sizes[i], self.ratios)
      boxes.append(grid)
      of.append(jnp.full(len(grid), i, jnp.int32))
    return {
      "levels": tuple(levels),
      "objectness": jnp.concatenate(scores, 1).astype(jnp.float32),
      "codes": jnp.concatenate(codes, 1).astype(jnp.float32),
      "anchors": jnp.concatenate(boxes),
      "of": jnp.concatenate(of),
    }

  def _features(self, x_BHWC):
    if isinstance(self.backbone, Backbone):
      return self.backbone(x_BHWC)
    return self.backbone.stages(x_BHWC)[-len(self.strides) :]

  def regions(self, levels, boxes_BR4):
    """The second stage; see `faster_rcnn`."""
    B, R, _ = boxes_BR4.shape
    x = self.cropped(levels, boxes_BR4, 7)
    x = x.reshape(B, R, -1).astype(self.dtype)
    x = jax.nn.relu(self.second(jax.nn.relu(self.first(x))))
    codes = self.codes(x).reshape(B, R, self.num_classes, 4)
    return {
      "logits": self.classes(x).astype(jnp.float32),
      "codes": codes.astype(jnp.float32),
    }

  def cropped(self, levels, boxes_BR4, size):
    """Features of regions, float32 [B, R, size, size, F]."""
    of_BR = level_of(boxes_BR4, self.strides)
    levels = levels[: len(self.strides)]
    return roi_align(levels, self.strides, boxes_BR4, of_BR, size=size)


def _backbone(name, channels, width, depth, strides, *, norm, **common):
  """(the module, the channels of its features at `strides`)."""
  if name == "csp":
    made = Backbone(
      channels, width, depth, strides=strides, norm=norm, **common
    )
    return made, [width * stride // 2 for stride in strides]
  counts, bottleneck = resnet.DEPTHS[depth]
  made = resnet.body(
    channels=channels,
    counts=counts[: strides[-1].bit_length() - 2],
    bottleneck=bottleneck,
    width=width,
    norm=norm,
    **common,
  )
  first = width * (4 if bottleneck else 1)
  return made, [first * stride // 4 for stride in strides]


def anchors(
  height: int,
  width: int,
  stride: int,
  sizes: Sequence[float],
  ratios: Sequence[float],
) -> jax.Array:
  """The anchors of a level, float32 [height * width * ratios * sizes, 4].

  As in torchvision: an anchor has the area size^2 and its height is ratio times
  its width, rounded to whole pixels; it is centred at the upper left corner of
  its cell. They are computed where the model runs, since those of a large image
  would be megabytes of constants in the program.
  """
  root = np.sqrt(np.asarray(ratios, np.float32))
  high = (root[:, None] * np.asarray(sizes, np.float32)).reshape(-1)
  wide = ((1 / root)[:, None] * np.asarray(sizes, np.float32)).reshape(-1)
  own = np.round(np.stack([-wide, -high, wide, high], 1) / 2)
  x, y = jnp.meshgrid(jnp.arange(width) * stride, jnp.arange(height) * stride)
  shift = jnp.stack([x, y, x, y], -1).reshape(-1, 1, 4).astype(jnp.float32)
  return (shift + own[None]).reshape(-1, 4)


def faster_rcnn(
  *,
  num_classes: int,
  channels: int,
  width: int = 16,
  depth: int = 1,
  features: int = 64,
  hidden: int = 256,
  sizes: Sequence[Sequence[float]] = ((32,), (64,), (128,)),
  ratios: Sequence[float] = (0.5, 1.0, 2.0),
  strides: Sequence[int] = STRIDES,
  norm: str = "group",
  backbone: str = "csp",
  coarser: bool = False,
  dtype: str = "float32",
  param_dtype: str = "float32",
) -> Model:
  """Faster R-CNN (Ren et al., 2015, arXiv:1506.01497) with a feature pyramid.

  image_BHWC -> {"levels": features [B, h, w, F] of each of `strides`,
  "objectness": logits [B, A], "codes": [B, A, 4], "anchors": [A, 4] in pixels,
  "of": int32 [A], the level of an anchor}. The method "regions" is (levels,
  boxes_BR4 in pixels) -> {"logits": [B, R, C + 1], of which the first is that
  of no object, "codes": [B, R, C, 4]}. All but the levels are float32. An image
  of any size is padded with zeros at its right and lower side to a multiple of
  the last stride.

  With backbone "resnet", depth 50, width 64, norm "frozen", strides (4, 8, 16,
  32), coarser, sizes ((32,), (64,), (128,), (256,), (512,)), 256 features and
  1024 hidden units it is torchvision's fasterrcnn_resnet50_fpn, but for the
  codes of no object, which that predicts and never uses. Then
  init_from=dict(path="resnet50.safetensors", map=[("^", "backbone/")]) begins
  with a trained backbone.

  Args:
    num_classes: C.
    channels: C of the images.
    width: channels of the backbone at half the size.
    depth: factor of the numbers of the backbone's blocks; of a ResNet 18, 34,
      50, 101 or 152.
    features: F.
    hidden: units of the two layers of the regions' head.
    sizes: for each level, the sides of its anchors in pixels.
    ratios: height / width of the anchors.
    strides: of the levels, of 4, 8, 16 and 32 some that follow each other.
    norm: of the backbone, "group" or "batch"; of a ResNet "batch" or "frozen".
    backbone: "csp", that of models/vision/yolo.py; or "resnet", that of
      models/vision/resnet.py.
    coarser: whether a further level, every second cell of the last one in both
      directions, has anchors; regions take no features from it.
    dtype: of the computation.
    param_dtype: of the parameters.

  Raises:
    ValueError: an argument is wrong.
  """
  config = settings(
    num_classes=num_classes,
    channels=channels,
    width=width,
    depth=depth,
    features=features,
    hidden=hidden,
    sizes=sizes,
    ratios=ratios,
    strides=strides,
    norm=norm,
    backbone=backbone,
    coarser=coarser,
    dtype=dtype,
    param_dtype=param_dtype,
  )
  return pure(lambda rngs: FasterRcnn(rngs=rngs, **config))


def settings(
  *, depth, sizes, ratios, strides, norm, backbone, coarser, dtype, param_dtype,
  **rest,
):  # fmt: skip
  """The arguments of `FasterRcnn` from those of `faster_rcnn`, checked."""
  sizes = tuple(tuple(level) for level in sizes)
  levels = len(strides) + bool(coarser)
  norms = resnet.NORMS
  if choose("backbone", backbone, BACKBONES) == "csp":
    norms = NORMS
  else:
    choose("depth", depth, resnet.DEPTHS)
  if len(sizes) != levels or len({len(level) for level in sizes}) != 1:
    raise ValueError(f"sizes={sizes}: needs {levels} levels with as many each")
  strides = tuple(strides)
  if strides not in _STRIDES:
    raise ValueError(
      f"strides={strides}: not two or more of 4, 8, 16 and 32 that follow each"
      " other"
    )
  return rest | {
    "sizes": sizes,
    "ratios": tuple(ratios),
    "strides": strides,
    "depth": depth,
    "norm": choose("norm", norm, norms),
    "backbone": backbone,
    "coarser": coarser,
    "dtype": float_dtype("dtype", dtype),
    "param_dtype": float_dtype("param_dtype", param_dtype),
  }


SHARDING = [
  (r"conv/kernel", P(None, None, None, "tensor")),
  (r"(first|second)/kernel", P(None, "tensor")),
]
