"""ConvNeXt: depthwise 7 x 7 convolutions and dense layers between norms.

The shape legend is in models/layers/basic.py; images are B, height, width, C.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P

from models import Model, pure
from models.layers.basic import (
  ACTIVATIONS,
  Conv,
  Dense,
  Norm,
  along_last,
  choose,
  float_dtype,
)
from models.layers.stochastic_depth import rates_of_depth, stochastic_depth

# Blocks and channels of each stage.
VARIANTS = {
  "T": ((3, 3, 9, 3), (96, 192, 384, 768)),
  "S": ((3, 3, 27, 3), (96, 192, 384, 768)),
  "B": ((3, 3, 27, 3), (128, 256, 512, 1024)),
  "L": ((3, 3, 27, 3), (192, 384, 768, 1536)),
}
_INIT = {"kernel_init": nnx.initializers.truncated_normal(0.02)}
_EPS = 1e-6  # of all norms but the last


class Patches(nnx.Module):
  """A convolution of size x size pixels without overlap, and a layer norm.

  `norm_first` puts the norm, then of the inputs, before the convolution.
  """

  def __init__(self, inputs, outputs, size, *, norm_first, **common):
    self.norm_first = norm_first
    self.conv = Conv(inputs, outputs, size, size, padding=0, **_INIT, **common)
    self.norm = Norm(
      inputs if norm_first else outputs,
      eps=_EPS,
      param_dtype=common["param_dtype"],
    )

  def __call__(self, x_BHWC):
    """The patches, [B, height / size, width / size, outputs]."""
    if self.norm_first:
      return self.conv(self.norm(x_BHWC))
    return self.norm(self.conv(x_BHWC))


class Block(nnx.Module):
  """x + scale * down(gelu(up(norm(depthwise(x))))), shape [B, H, W, C].

  Attributes:
    scale: [C], one factor a channel (arXiv:2103.17239).
  """

  def __init__(self, dim, *, layer_scale, rate, rngs, **common):
    own = {"rngs": rngs, **_INIT, **common}
    param_dtype = common["param_dtype"]
    self.depthwise = Conv(dim, dim, 7, groups=dim, **own)
    self.norm = Norm(dim, eps=_EPS, param_dtype=param_dtype)
    self.up = Dense(dim, 4 * dim, **own)
    self.down = Dense(4 * dim, dim, **own)
    self.scale = nnx.Param(jnp.full((dim,), layer_scale, param_dtype))
    self.drop = nnx.data(stochastic_depth(rate, 4, rngs))

  def __call__(self, x_BHWC):
    """The block's output, of the shape of its input."""
    y = self.up(self.norm(self.depthwise(x_BHWC)))
    y = self.down(ACTIVATIONS["gelu_exact"](y))
    y *= along_last(self.scale[...].astype(y.dtype), 4)
    return x_BHWC + (y if self.drop is None else self.drop(y))


class ConvNeXt(nnx.Module):
  """Images to logits. `convnext` documents the arguments."""

  def __init__(
    self,
    *,
    num_classes,
    channels,
    depths,
    dims,
    patch,
    drop_path,
    layer_scale,
    norm_eps,
    dtype,
    **common,
  ):
    common["dtype"] = self.dtype = dtype
    self.stem = Patches(channels, dims[0], patch, norm_first=False, **common)
    self.downsamples = nnx.List(
      Patches(*pair, 2, norm_first=True, **common)
      for pair in zip(dims[:-1], dims[1:], strict=True)
    )
    self.depths = tuple(depths)
    rates = iter(rates_of_depth(drop_path, sum(depths)))
    self.blocks = nnx.List(
      Block(dim, layer_scale=layer_scale, rate=next(rates), **common)
      for dim, depth in zip(dims, depths, strict=True)
      for _ in range(depth)
    )
    param_dtype = common["param_dtype"]
    self.final_norm = Norm(dims[-1], eps=norm_eps, param_dtype=param_dtype)
    self.head = Dense(dims[-1], num_classes, **_INIT, **common)

  def __call__(self, image_BHWC):
    """logits_BC, float32."""
    return self.head(self.features(image_BHWC)).astype("float32")

  def features(self, image_BHWC):
    """x_BF, the normalized mean over pixels of the last stage."""
    x = self.stages(image_BHWC)[-1]
    x = x.astype(jnp.float32).mean(axis=(1, 2))
    return self.final_norm(x).astype(self.dtype)

  def stages(self, image_BHWC) -> list[jax.Array]:
    """The outputs of the four stages, each of half the height and width."""
    x, found, blocks = self.stem(image_BHWC), [], iter(self.blocks)
    for stage, depth in enumerate(self.depths):
      if stage:
        x = self.downsamples[stage - 1](x)
      for _ in range(depth):
        x = next(blocks)(x)
      found.append(x)
    return found


def convnext(
  *,
  num_classes: int,
  channels: int = 3,
  variant: str = "T",
  depths: Sequence[int] | None = None,
  dims: Sequence[int] | None = None,
  patch: int = 4,
  drop_path: float = 0.0,
  layer_scale: float = 1e-6,
  norm_eps: float = 1e-6,
  dtype: str = "float32",
  param_dtype: str = "float32",
) -> Model:
  """A ConvNeXt, image_BHWC -> logits_BC in float32 (arXiv:2201.03545).

  The methods "features" and "stages" return x_BF, the input of the last layer,
  and a list of the outputs of the stages.

  Args:
    num_classes: C of the logits.
    channels: C of the images.
    variant: T, S, B or L; it sets `depths` and `dims` where they are None.
    depths: blocks of each stage.
    dims: channels of each stage.
    patch: height and width of the stem's patches; 1 or 2 for small images.
    drop_path: rate of stochastic depth in the last block (arXiv:1603.09382),
      in training; the rates of the others rise linearly from 0.
    layer_scale: the initial factor of each block's branch.
    norm_eps: added to the variance in the last norm.
    dtype: of the computation.
    param_dtype: of the parameters.

  Raises:
    ValueError: the variant or a dtype is unknown, or `depths` and `dims` are
      not of one length.
  """
  found = VARIANTS[choose("variant", variant, VARIANTS)]
  depths, dims = tuple(depths or found[0]), tuple(dims or found[1])
  if len(depths) != len(dims):
    raise ValueError(f"depths = {depths} and dims = {dims} differ in length")
  config = {
    "num_classes": num_classes,
    "channels": channels,
    "depths": depths,
    "dims": dims,
    "patch": patch,
    "drop_path": drop_path,
    "layer_scale": layer_scale,
    "norm_eps": norm_eps,
    "dtype": float_dtype("dtype", dtype),
    "param_dtype": float_dtype("param_dtype", param_dtype),
  }
  return pure(lambda rngs: ConvNeXt(rngs=rngs, **config))


SHARDING = [
  (r"up/kernel", P(None, "tensor")),
  (r"down/kernel", P("tensor", None)),
  (r"conv/kernel", P(None, None, None, "tensor")),
  (r"head/kernel", P(None, "tensor")),
]
