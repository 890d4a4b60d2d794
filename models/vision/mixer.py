"""MLP-Mixer: perceptrons over patches alternate with ones over channels.

The shape legend is in models/layers/basic.py; images are B, height, width, C.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P

from models import Model, pure
from models.layers import transformer
from models.layers.basic import (
  Dense,
  Norm,
  choose,
  dropout_layer,
  float_dtype,
)
from models.vision.vit import patches, variant_of

# layers, D, hidden units over patches and over channels.
VARIANTS = {
  "S": (8, 512, 256, 2048),
  "B": (12, 768, 384, 3072),
  "L": (24, 1024, 512, 4096),
}


class Block(nnx.Module):
  """x += mix(norm(x)') over patches; x += mix(norm(x)) over channels."""

  def __init__(
    self, dim, *, tokens, token_hidden, hidden, activation, norm, dropout, **own
  ):
    param_dtype = own["param_dtype"]
    feed_forward = {
      "activation": activation,
      "out_init": own["kernel_init"],
      **own,
    }
    self.token_norm = Norm(dim, param_dtype=param_dtype, **norm)
    self.tokens = transformer.FeedForward(tokens, token_hidden, **feed_forward)
    self.channel_norm = Norm(dim, param_dtype=param_dtype, **norm)
    self.channels = transformer.FeedForward(dim, hidden, **feed_forward)
    self.dropout = nnx.data(dropout_layer(dropout, own["rngs"]))

  def __call__(self, x_BTD, cache=None, length=0):
    """Returns (x_BTD, None, {}), as models/layers/transformer.py's block."""
    y_BDT = self.tokens(self.token_norm(x_BTD).swapaxes(1, 2))
    x_BTD += self._dropped(y_BDT.swapaxes(1, 2))
    x_BTD += self._dropped(self.channels(self.channel_norm(x_BTD)))
    return x_BTD, cache, {}

  def _dropped(self, y_BTD):
    return y_BTD if self.dropout is None else self.dropout(y_BTD)


class Mixer(nnx.Module):
  """Images to logits. `mixer` documents the arguments."""

  def __init__(
    self,
    *,
    num_classes,
    channels,
    image_size,
    patch,
    count,
    dim,
    norm,
    scan,
    remat,
    dtype,
    param_dtype,
    rngs,
    **block,
  ):
    self.patch, self.scan, self.remat = patch, scan, remat
    common = {"dtype": dtype, "param_dtype": param_dtype}
    self.patch_embedding = Dense(
      patch * patch * channels,
      dim,
      kernel_init=nnx.initializers.lecun_normal(),
      rngs=rngs,
      **common,
    )
    self.blocks = transformer.stacked_blocks(
      count,
      rngs,
      dim,
      kind=Block,
      tokens=(image_size // patch) ** 2,
      norm=norm,
      **block,
      **common,
    )
    self.final_norm = Norm(dim, param_dtype=param_dtype, **norm)
    self.head = Dense(
      dim,
      num_classes,
      kernel_init=nnx.initializers.zeros,
      rngs=rngs,
      **common,
    )

  def __call__(self, image_BHWC):
    """logits_BC, float32."""
    return self.head(self.features(image_BHWC)).astype("float32")

  def features(self, image_BHWC) -> jax.Array:
    """x_BD, the mean over patches after the last norm."""
    x_BTD = self.patch_embedding(patches(image_BHWC, self.patch))
    x_BTD, _, _ = transformer.run_blocks(
      self.blocks, x_BTD, scan=self.scan, remat=self.remat
    )
    return jnp.mean(self.final_norm(x_BTD), axis=1)


def mixer(
  *,
  num_classes: int,
  channels: int = 3,
  image_size: int = 224,
  variant: str = "B/16",
  layers: int | None = None,
  dim: int | None = None,
  token_hidden: int | None = None,
  hidden: int | None = None,
  patch: int | None = None,
  activation: str = "gelu_exact",
  norm_eps: float = 1e-6,
  dropout: float = 0.0,
  scan: bool = True,
  remat: str = "none",
  dtype: str = "float32",
  param_dtype: str = "float32",
) -> Model:
  """An MLP-Mixer, image_BHWC -> logits_BC in float32 (arXiv:2105.01601).

  Its parameters depend on the number of patches, so it reads images of one
  size. The method "features" returns x_BD, the input of the last layer.

  Args:
    num_classes: C of the logits.
    channels: C of the images.
    image_size: height and width of the images, a multiple of `patch`.
    variant: size and patch, such as "B/16"; sizes are S, B and L. It sets the
      five sizes below where they are None.
    layers: number of blocks.
    dim: D.
    token_hidden: hidden units of the perceptrons over patches.
    hidden: hidden units of the perceptrons over channels.
    patch: height and width of a patch.
    activation: "gelu_exact", "gelu" (tanh approximation) or "swiglu".
    norm_eps: added to the variance.
    dropout: rate, of each addition to the residual stream.
    scan: whether one layer is compiled and looped over; otherwise each layer is
      compiled. The parameters are the same.
    remat: which activations the backward pass computes again: "none", "full"
      or "dots".
    dtype: of the computation.
    param_dtype: of the parameters.

  Raises:
    ValueError: a choice is unknown, or the patch does not divide the images.
  """
  found = variant_of(variant, VARIANTS)
  given = (layers, dim, token_hidden, hidden, patch)
  layers, dim, token_hidden, hidden, patch = (
    own or size for own, size in zip(given, found, strict=True)
  )
  if image_size % patch:
    raise ValueError(f"image_size = {image_size} is not a multiple of {patch}")
  config = {
    "num_classes": num_classes,
    "channels": channels,
    "image_size": image_size,
    "patch": patch,
    "count": layers,
    "dim": dim,
    "token_hidden": token_hidden,
    "hidden": hidden,
    "activation": activation,
    "norm": {"eps": norm_eps},
    "dropout": dropout,
    "scan": scan,
    "remat": choose("remat", remat, transformer.REMAT),
    "kernel_init": nnx.initializers.xavier_uniform(),
    "dtype": float_dtype("dtype", dtype),
    "param_dtype": float_dtype("param_dtype", param_dtype),
  }
  return pure(lambda rngs: Mixer(rngs=rngs, **config))


SHARDING = [
  (r"blocks/(tokens|channels)/up/kernel", P("stage", None, "tensor")),
  (r"blocks/(tokens|channels)/up/bias", P("stage", "tensor")),
  (r"blocks/(tokens|channels)/down/kernel", P("stage", "tensor", None)),
  (r"blocks/", P("stage")),
  (r"head/kernel", P(None, "tensor")),
]
