"""The vision transformer.

The shape legend is in models/layers/basic.py; images are B, height, width, C.
"""

import re

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P

from models import Model, pure
from models.layers import quantization, transformer
from models.layers.basic import Dense, Norm, choose, dropout_layer, float_dtype

# layers, dim, heads; the hidden size is 4 dim.
VARIANTS = {
  "Ti": (12, 192, 3),
  "S": (12, 384, 6),
  "B": (12, 768, 12),
  "L": (24, 1024, 16),
}
POOLS = ("cls", "gap")


class ViT(nnx.Module):
  """Images to logits. `vit` documents the arguments."""

  def __init__(
    self,
    *,
    num_classes,
    channels,
    image_size,
    patch,
    count,
    dim,
    pool,
    norm,
    dropout,
    scan,
    remat,
    dtype,
    param_dtype,
    rngs,
    **block,
  ):
    self.patch, self.scan, self.remat = patch, scan, remat
    common = {"dtype": dtype, "param_dtype": param_dtype}
    tokens = (image_size // patch) ** 2 + (pool == "cls")
    self.patch_embedding = Dense(
      patch * patch * channels,
      dim,
      kernel_init=nnx.initializers.lecun_normal(),
      rngs=rngs,
      **common,
    )
    self.cls = nnx.data(
      nnx.Param(jnp.zeros((1, 1, dim), param_dtype)) if pool == "cls" else None
    )
    self.position_embedding = nnx.Param(
      nnx.initializers.normal(0.02)(
        rngs.params(), (1, tokens, dim), param_dtype
      )
    )
    self.dropout = nnx.data(dropout_layer(dropout, rngs))
    self.blocks = transformer.stacked_blocks(
      count, rngs, dim, norm=norm, dropout=dropout, **block, **common
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

  def features(self, image_BHWC):
    """x_BD, of the class token or the mean over patches."""
    x_BTD = self.patch_embedding(patches(image_BHWC, self.patch))
    if self.cls is not None:
      cls_BTD = jnp.broadcast_to(
        self.cls[...].astype(x_BTD.dtype), (x_BTD.shape[0], 1, x_BTD.shape[2])
      )
      x_BTD = jnp.concatenate([cls_BTD, x_BTD], axis=1)
    x_BTD += self.position_embedding[...].astype(x_BTD.dtype)
    if self.dropout is not None:
      x_BTD = self.dropout(x_BTD)
    x_BTD, _, _ = transformer.run_blocks(
      self.blocks, x_BTD, scan=self.scan, remat=self.remat
    )
    x_BTD = self.final_norm(x_BTD)
    return x_BTD.mean(axis=1) if self.cls is None else x_BTD[:, 0]


def patches(image_BHWC: jax.Array, size: int) -> jax.Array:
  """Square patches, row by row, each flat: x_BTI with I = size * size * C."""
  B, H, W, C = image_BHWC.shape
  x = image_BHWC.reshape(B, H // size, size, W // size, size, C)
  return x.swapaxes(2, 3).reshape(B, -1, size * size * C)


def vit(
  *,
  num_classes: int,
  channels: int = 3,
  image_size: int = 224,
  variant: str = "S/16",
  layers: int | None = None,
  dim: int | None = None,
  heads: int | None = None,
  hidden: int | None = None,
  patch: int | None = None,
  pool: str = "cls",
  activation: str = "gelu_exact",
  norm_eps: float = 1e-6,
  dropout: float = 0.0,
  scan: bool = True,
  remat: str = "none",
  matmul: str | None = None,
  dtype: str = "float32",
  param_dtype: str = "float32",
) -> Model:
  """A vision transformer, image_BHWC -> logits_BC in float32.

  arXiv:2010.11929, without the hidden layer before the logits and with learned
  positions. Kernels are drawn from Xavier's uniform distribution; the last one
  is zero. The method "features" returns x_BD, the input of the last layer.

  Args:
    num_classes: C of the logits.
    channels: C of the images.
    image_size: height and width of the images, a multiple of `patch`.
    variant: size and patch, such as "B/16"; sizes are Ti, S, B and L. It sets
      layers, dim, heads and patch where they are None.
    layers: number of blocks.
    dim: D.
    heads: N, a divisor of D.
    hidden: F; 4 D if None.
    patch: height and width of a patch.
    pool: "cls", a class token, or "gap", the mean over patches.
    activation: "gelu_exact", "gelu" (tanh approximation) or "swiglu".
    norm_eps: added to the variance.
    dropout: rate, of the embeddings and of each addition to the residual
      stream.
    scan: whether one layer is compiled and looped over; otherwise each layer is
      compiled. The parameters are the same.
    remat: which activations the backward pass computes again: "none", "full"
      or "dots".
    matmul: "int8" or "fp8" computes the blocks' dense layers in 8 bits, forward
      and backward; see models/layers/quantization.py.
    dtype: of the computation.
    param_dtype: of the parameters.

  Raises:
    ValueError: a choice is unknown, or a size does not divide another.
  """
  found = sizes(variant)
  layers, dim, heads, patch = (
    given or size
    for given, size in zip((layers, dim, heads, patch), found, strict=True)
  )
  for what, whole, part in (
    ("image_size", image_size, patch),
    ("dim", dim, heads),
  ):
    if whole % part:
      raise ValueError(f"{what} = {whole} is not a multiple of {part}")
  init = nnx.initializers.xavier_uniform()
  config = {
    "num_classes": num_classes,
    "channels": channels,
    "image_size": image_size,
    "patch": patch,
    "count": layers,
    "dim": dim,
    "pool": choose("pool", pool, POOLS),
    "norm": {"eps": norm_eps},
    "dropout": dropout,
    "scan": scan,
    "remat": choose("remat", remat, transformer.REMAT),
    "attention": {
      "heads": heads,
      "kv_heads": heads,
      "head_dim": dim // heads,
      "causal": False,
      "rope_theta": None,
      "out_init": init,
    },
    "feed_forward": {
      "hidden": hidden or 4 * dim,
      "activation": activation,
      "out_init": init,
    },
    "bias": True,
    "kernel_init": init,
    "matmul": quantization.check(matmul),
    "dtype": float_dtype("dtype", dtype),
    "param_dtype": float_dtype("param_dtype", param_dtype),
  }
  return pure(lambda rngs: ViT(rngs=rngs, **config))


def sizes(variant: str) -> tuple:
  """(layers, dim, heads, patch) of a variant such as "B/16"."""
  match = re.fullmatch(r"(\w+)/(\d+)", variant)
  if not match or match[1] not in VARIANTS:
    raise ValueError(
      f'variant = "{variant}" is not SIZE/PATCH with a size of: '
      + ", ".join(VARIANTS)
    )
  return *VARIANTS[match[1]], int(match[2])


SHARDING = [*transformer.SHARDING, (r"head/kernel", P(None, "tensor"))]
