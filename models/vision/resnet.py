"""Residual networks, version 1.5.

The shape legend is in models/layers/basic.py; images are B, height, width, C.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P

from models import Model, pure
from models.layers.basic import BatchNorm, Conv, Dense, choose, float_dtype

# Blocks in each of the four stages, and whether they are bottlenecks.
DEPTHS = {
  18: ((2, 2, 2, 2), False),
  34: ((3, 4, 6, 3), False),
  50: ((3, 4, 6, 3), True),
  101: ((3, 4, 23, 3), True),
  152: ((3, 8, 36, 3), True),
}
STEMS = {"imagenet": (7, 2), "cifar": (3, 1)}  # width of the kernel, stride


class ConvNorm(nnx.Module):
  """A convolution without bias and with symmetric padding, then batch norm."""

  def __init__(
    self, inputs, outputs, size, stride=1, *, dtype, param_dtype, rngs
  ):
    self.conv = Conv(
      inputs,
      outputs,
      size,
      stride,
      padding=size // 2,
      bias=False,
      # Fan out preserves the gradients' variance (arXiv:1502.01852, 2.2).
      kernel_init=nnx.initializers.variance_scaling(2.0, "fan_out", "normal"),
      dtype=dtype,
      param_dtype=param_dtype,
      rngs=rngs,
    )
    self.norm = BatchNorm(outputs, param_dtype=param_dtype)

  def __call__(self, x):
    """norm(conv(x))."""
    return self.norm(self.conv(x))


class ResidualBlock(nnx.Module):
  """relu(shortcut(x) + convs(x)), shape [B, height, width, C]."""

  def __init__(self, inputs, width, stride, bottleneck, **common):
    if bottleneck:
      outputs = 4 * width
      shapes = [
        (inputs, width, 1, 1),
        (width, width, 3, stride),
        (width, outputs, 1, 1),
      ]
    else:
      outputs = width
      shapes = [(inputs, width, 3, stride), (width, width, 3, 1)]
    self.convs = nnx.List(ConvNorm(*shape, **common) for shape in shapes)
    self.shortcut = nnx.data(
      ConvNorm(inputs, outputs, 1, stride, **common)
      if stride != 1 or inputs != outputs
      else None
    )

  def __call__(self, x):
    """The block's output; with a stride of 2 it has a quarter of the pixels."""
    y = x
    for conv in self.convs[:-1]:
      y = jax.nn.relu(conv(y))
    y = self.convs[-1](y)
    return jax.nn.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class ResNet(nnx.Module):
  """Images to logits. `resnet` documents the arguments."""

  def __init__(
    self, *, num_classes, channels, depth, stem, width, dtype, **common
  ):
    common["dtype"] = dtype
    counts, bottleneck = DEPTHS[depth]
    self.pool = stem == "imagenet"
    self.dtype = dtype
    self.stem = ConvNorm(channels, width, *STEMS[stem], **common)
    blocks, inputs = [], width
    for stage, count in enumerate(counts):
      for index in range(count):
        stride = 2 if stage > 0 and index == 0 else 1
        outputs = width * 2**stage
        blocks.append(
          ResidualBlock(inputs, outputs, stride, bottleneck, **common)
        )
        inputs = outputs * (4 if bottleneck else 1)
    self.blocks = nnx.List(blocks)
    self.head = Dense(
      inputs,
      num_classes,
      kernel_init=nnx.initializers.lecun_normal(),
      **common,
    )

  def __call__(self, image_BHWC):
    """logits_BC, float32."""
    return self.head(self.features(image_BHWC)).astype("float32")

  def features(self, image_BHWC):
    """x_BF, the mean over pixels of the last block's activations."""
    x = jax.nn.relu(self.stem(image_BHWC.astype(self.dtype)))
    if self.pool:
      x = nnx.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
    for block in self.blocks:
      x = block(x)
    return x.astype(jnp.float32).mean(axis=(1, 2)).astype(self.dtype)


def resnet(
  *,
  num_classes: int,
  channels: int = 3,
  depth: int = 18,
  stem: str = "imagenet",
  width: int = 64,
  dtype: str = "float32",
  param_dtype: str = "float32",
) -> Model:
  """A residual network, image_BHWC -> logits_BC in float32.

  Version 1.5 of arXiv:1512.03385, in which a bottleneck's 3 x 3 convolution has
  the stride; this and the symmetric padding are as in PyTorch. Batch norm's
  moving averages keep 0.9 of their value at each step; its epsilon is 1e-5. The
  moving variance averages the biased variance of the batch; PyTorch averages
  the unbiased one, which is n / (n - 1) times as large. The method "features"
  returns x_BF, the pooled activations before the last layer.

  Args:
    num_classes: C of the logits.
    channels: C of the images.
    depth: 18 or 34 (two 3 x 3 convolutions a block); 50, 101 or 152
      (bottlenecks).
    stem: "imagenet", a 7 x 7 convolution and a max pool, both of stride 2; or
      "cifar", a 3 x 3 convolution of stride 1.
    width: channels of the stem and of the first stage's 3 x 3 convolutions.
    dtype: of the computation.
    param_dtype: of the parameters.

  Raises:
    ValueError: the depth, the stem or a dtype is unknown.
  """
  config = {
    "num_classes": num_classes,
    "channels": channels,
    "depth": choose("depth", depth, DEPTHS),
    "stem": choose("stem", stem, STEMS),
    "width": width,
    "dtype": float_dtype("dtype", dtype),
    "param_dtype": float_dtype("param_dtype", param_dtype),
  }
  return pure(lambda rngs: ResNet(rngs=rngs, **config))


SHARDING = [
  (r"conv/kernel", P(None, None, None, "tensor")),
  (r"head/kernel", P(None, "tensor")),
]
