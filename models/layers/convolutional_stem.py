"""A convolutional stem of vision transformers, in place of patches."""

import jax
from flax import nnx

from models.layers.basic import Conv, Norm

_INIT = nnx.initializers.he_normal()


class ConvolutionalStem(nnx.Module):
  """3 x 3 convolutions of stride 2, then one of 1 x 1 (arXiv:2106.14881).

  There are as many as halvings in `patch`; the last has `dim` channels and each
  one before it half of those of its successor. Each is followed by layer norm
  over the channels, where the paper has batch norm, and relu.
  """

  def __init__(self, channels, dim, patch, *, norm, rngs, **common):
    halvings = patch.bit_length() - 1
    if patch != 2**halvings or halvings < 1 or dim % 2 ** (halvings - 1):
      raise ValueError(
        f"stem = convolutions: patch = {patch} is not a power of 2, or dim ="
        f" {dim} cannot be halved for each convolution before the last"
      )
    widths = [dim >> i for i in reversed(range(halvings))]
    pairs = zip([channels, *widths[:-1]], widths, strict=True)
    self.convs = nnx.List(
      Conv(*pair, 3, 2, kernel_init=_INIT, rngs=rngs, **common)
      for pair in pairs
    )
    self.norms = nnx.List(
      Norm(width, param_dtype=common["param_dtype"], **norm) for width in widths
    )
    self.last = Conv(dim, dim, 1, kernel_init=_INIT, rngs=rngs, **common)

  def __call__(self, image_BHWC):
    """x_BTD, one vector for each patch, row by row."""
    x = image_BHWC
    for conv, norm in zip(self.convs, self.norms, strict=True):
      x = jax.nn.relu(norm(conv(x)))
    x_BHWD = self.last(x)
    return x_BHWD.reshape(x_BHWD.shape[0], -1, x_BHWD.shape[-1])
