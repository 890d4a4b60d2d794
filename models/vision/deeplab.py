"""Classifiers of pixels on a dilated residual network: DeepLabV3 and FCN.

The shape legend is in models/layers/basic.py; images are B, height, width, C.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P

from models import Model, pure
from models.layers.basic import (
  Conv,
  choose,
  dropout_layer,
  float_dtype,
)
from models.layers.residual import ConvNorm
from models.vision.fcn import resized
from models.vision.resnet import DEPTHS, OUTPUT_STRIDES, body

HEADS = ("deeplab", "fcn")


class ConvHead(nnx.Module):
  """A 3 x 3 convolution, norm, relu, dropout, and the logits of cells."""

  def __init__(self, inputs, hidden, num_classes, *, dropout, rngs, **common):
    self.enter = ConvNorm(inputs, hidden, 3, rngs=rngs, **common)
    self.dropout = nnx.data(dropout_layer(dropout, rngs))
    self.logits = Conv(
      hidden,
      num_classes,
      1,
      kernel_init=nnx.initializers.lecun_normal(),
      rngs=rngs,
      **common,
    )

  def __call__(self, x_BHWC):
    """Returns [B, H, W, num_classes]."""
    x_BHWC = jax.nn.relu(self.enter(x_BHWC))
    if self.dropout is not None:
      x_BHWC = self.dropout(x_BHWC)
    return self.logits(x_BHWC)


class Pyramid(nnx.Module):
  """Atrous spatial pyramid pooling (arXiv:1706.05587, section 3.3).

  A 1 x 1 convolution, one of 3 x 3 for each dilation and the mean over all
  cells, side by side, then a 1 x 1 convolution.
  """

  def __init__(self, inputs, outputs, rates, *, dropout, **common):
    self.branches = nnx.List(
      [
        ConvNorm(inputs, outputs, 1, **common),
        *(
          ConvNorm(inputs, outputs, 3, dilation=rate, **common)
          for rate in rates
        ),
      ]
    )
    self.mean = ConvNorm(inputs, outputs, 1, **common)
    self.join = ConvNorm((2 + len(rates)) * outputs, outputs, 1, **common)
    self.dropout = nnx.data(dropout_layer(dropout, common["rngs"]))

  def __call__(self, x_BHWC):
    """Returns [B, H, W, outputs]."""
    parts = [jax.nn.relu(branch(x_BHWC)) for branch in self.branches]
    mean_B11C = x_BHWC.astype(jnp.float32).mean((1, 2), keepdims=True)
    mean_B11C = jax.nn.relu(self.mean(mean_B11C.astype(x_BHWC.dtype)))
    parts.append(jnp.broadcast_to(mean_B11C, parts[0].shape))
    x_BHWC = jax.nn.relu(self.join(jnp.concatenate(parts, axis=-1)))
    return x_BHWC if self.dropout is None else self.dropout(x_BHWC)


class DeepLab(nnx.Module):
  """See `deeplab`."""

  def __init__(
    self, *, num_classes, head, rates, features, dropout, auxiliary, width,
    counts, bottleneck, channels, output_stride, dtype, param_dtype, rngs,
  ):  # fmt: skip
    common = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
    self.backbone = body(
      channels=channels,
      counts=counts,
      bottleneck=bottleneck,
      width=width,
      output_stride=output_stride,
      **common,
    )
    times = 4 if bottleneck else 1
    inputs = width * times * 2 ** (len(counts) - 1)
    self.pyramid = nnx.data(
      Pyramid(inputs, features, rates, dropout=dropout, **common)
      if head == "deeplab"
      else None
    )
    sizes = (features, features) if head == "deeplab" else (inputs, inputs // 4)
    rate = 0.0 if head == "deeplab" else dropout
    self.head = ConvHead(*sizes, num_classes, dropout=rate, **common)
    inputs //= 2
    self.auxiliary = nnx.data(
      ConvHead(inputs, inputs // 4, num_classes, dropout=0.1, **common)
      if auxiliary
      else None
    )

  def __call__(self, image_BHWC):
    """logits_BHWC of every pixel, float32."""
    return self._logits(self.backbone.stages(image_BHWC), image_BHWC)

  def both(self, image_BHWC):
    """logits_BHWC, and those of the auxiliary head; both float32."""
    if self.auxiliary is None:
      raise ValueError("config.model.auxiliary=True adds the auxiliary head")
    stages = self.backbone.stages(image_BHWC)
    second_BHWC = _enlarged(self.auxiliary(stages[-2]), image_BHWC)
    return self._logits(stages, image_BHWC), second_BHWC

  def _logits(self, stages, image_BHWC):
    x_BHWC = stages[-1]
    if self.pyramid is not None:
      x_BHWC = self.pyramid(x_BHWC)
    return _enlarged(self.head(x_BHWC), image_BHWC)


def _enlarged(logits_BHWC, image_BHWC):
  """Logits of cells -> float32 logits of the pixels of an image."""
  return resized(logits_BHWC.astype("float32"), image_BHWC.shape[1:3])


def deeplab(
  *,
  num_classes: int,
  channels: int = 3,
  head: str = "deeplab",
  depth: int = 50,
  blocks: Sequence[int] | None = None,
  bottleneck: bool | None = None,
  width: int = 64,
  output_stride: int = 8,
  rates: Sequence[int] = (12, 24, 36),
  features: int = 256,
  dropout: float = 0.5,
  auxiliary: bool = False,
  dtype: str = "float32",
  param_dtype: str = "float32",
) -> Model:
  """DeepLabV3 (Chen et al., 2017, arXiv:1706.05587), as torchvision has it.

  image_BHWC -> logits_BHWC in float32; any height and width. The method "both"
  returns these and the logits of the auxiliary head. With head "fcn" and
  dropout 0.1 it is torchvision's FCN, two convolutions on the same backbone
  (Long et al., 2015, arXiv:1411.4038).

  The backbone is models/vision/resnet.py without its last layer, under the path
  "backbone": init_from=dict(path="resnet50.safetensors",
  map=[("^", "backbone/")]) begins with one that is trained.

  Args:
    num_classes: C of the logits.
    channels: C of the images.
    head: "deeplab", a pyramid of dilated convolutions and the mean over the
      image; or "fcn".
    depth: of the backbone, 18, 34, 50, 101 or 152.
    blocks: of each stage; None takes those of the depth.
    bottleneck: as in the backbone; None takes that of the depth.
    width: channels of the backbone's stem and first stage.
    output_stride: 8 or 16; later stages have dilated convolutions.
    rates: dilations of the pyramid, as published for output stride 8; half of
      them for 16.
    features: channels of the pyramid.
    dropout: rate, after the pyramid, or in the head "fcn".
    auxiliary: whether a second head reads the stage before the last; the task
      has the weight of its loss.
    dtype: of the computation.
    param_dtype: of the parameters.

  Raises:
    ValueError: an argument is unknown.
  """
  counts, has_bottlenecks = DEPTHS[choose("depth", depth, DEPTHS)]
  config = {
    "num_classes": num_classes,
    "channels": channels,
    "head": choose("head", head, HEADS),
    "counts": tuple(blocks or counts),
    "bottleneck": has_bottlenecks if bottleneck is None else bottleneck,
    "width": width,
    "output_stride": choose("output_stride", output_stride, OUTPUT_STRIDES),
    "rates": tuple(rates),
    "features": features,
    "dropout": dropout,
    "auxiliary": auxiliary,
    "dtype": float_dtype("dtype", dtype),
    "param_dtype": float_dtype("param_dtype", param_dtype),
  }
  return pure(lambda rngs: DeepLab(rngs=rngs, **config))


SHARDING = [(r"conv/kernel", P(None, None, None, "tensor"))]
