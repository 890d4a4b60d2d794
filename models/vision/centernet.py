"""A small detector without anchors: heat maps of the centres of objects.

The shape legend is in models/layers/basic.py; images are B, height, width, C.
"""

import jax
from flax import nnx
from jax.sharding import PartitionSpec as P

from models import Model, pure
from models.layers.basic import Conv, float_dtype
from models.vision.fcn import ConvNorm, Encoder

# The logit of a probability of 0.1, with which the heat begins: nearly all
# cells have no centre (arXiv:1708.02002, section 3.3).
_PRIOR = -2.2


class CenterNet(nnx.Module):
  """An Encoder to an eighth of the size, and two heads."""

  def __init__(self, *, num_classes, channels, width, blocks, rngs, **common):
    self.encoder = Encoder(channels, width, blocks, rngs=rngs, **common)
    self.neck = ConvNorm(4 * width, 4 * width, rngs=rngs, **common)
    self.heat = Conv(4 * width, num_classes, 1, rngs=rngs, **common)
    self.sides = Conv(4 * width, 4, 1, rngs=rngs, **common)

  def __call__(self, image_BHWC):
    """{"heat": logits [B, h, w, C], "sides": [B, h, w, 4]}, float32.

    The sides are the distances from the centre of a cell to the left, upper,
    right and lower side of the box, in cells.
    """
    x_BHWC = self.neck(self.encoder(image_BHWC)[-1])
    return {
      "heat": self.heat(x_BHWC).astype("float32") + _PRIOR,
      "sides": jax.nn.softplus(self.sides(x_BHWC).astype("float32")),
    }


def centernet(
  *,
  num_classes: int,
  channels: int,
  width: int = 16,
  blocks: int = 3,
  dtype: str = "float32",
  param_dtype: str = "float32",
) -> Model:
  """A detector, image_BHWC -> {"heat", "sides"} on a grid of stride 8.

  The heat maps are those of CenterNet (Zhou et al., 2019, arXiv:1904.07850),
  and the sides of a box those of FCOS (arXiv:1904.01355). It is of a size for
  a CPU and starts from nothing.

  Args:
    num_classes: C of the heat.
    channels: C of the images.
    width: channels at half the size; they double at each halving.
    blocks: residual blocks at an eighth of the size.
    dtype: of the computation.
    param_dtype: of the parameters.
  """
  config = {
    "num_classes": num_classes,
    "channels": channels,
    "width": width,
    "blocks": blocks,
    "dtype": float_dtype("dtype", dtype),
    "param_dtype": float_dtype("param_dtype", param_dtype),
  }
  return pure(lambda rngs: CenterNet(rngs=rngs, **config))


SHARDING = [(r"conv/kernel", P(None, None, None, "tensor"))]
