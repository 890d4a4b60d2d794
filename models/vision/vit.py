"""The vision transformer, also with a distillation token or registers.

The shape legend is in models/layers/basic.py; images are B, height, width, C.
"""

import re
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P

from models import Model, pure
from models.layers import positions, quantization, transformer
from models.layers.attention_pooling import AttentionPool
from models.layers.basic import Dense, Norm, choose, dropout_layer, float_dtype
from models.layers.convolutional_stem import ConvolutionalStem

# layers, dim, heads; the hidden size is 4 dim.
VARIANTS = {
  "Ti": (12, 192, 3),
  "S": (12, 384, 6),
  "B": (12, 768, 12),
  "L": (24, 1024, 16),
}
POOLS = ("cls", "gap", "cls_gap", "map")
POSITION_INITS = ("normal", "sinusoidal")
STEMS = ("patch", "convolutions")


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
    position_init,
    registers,
    distilled,
    stem,
    norm,
    dropout,
    layer_scale,
    scan,
    remat,
    dtype,
    param_dtype,
    rngs,
    **block,
  ):
    self.patch, self.scan, self.remat = patch, scan, remat
    self.grid, self.pool = image_size // patch, pool
    # Set by models.pure: whether this is not training.
    self.deterministic = True
    common = {"dtype": dtype, "param_dtype": param_dtype}
    has_cls = pool in ("cls", "cls_gap")
    tokens = self.grid**2 + has_cls + distilled
    self.stem = stem
    self.patch_embedding = _patch_embedding(
      stem, channels, dim, patch, norm, rngs=rngs, **common
    )
    self.cls = nnx.data(
      nnx.Param(jnp.zeros((1, 1, dim), param_dtype)) if has_cls else None
    )
    if position_init == "sinusoidal":
      table = positions.grid_sinusoids((self.grid,) * 2, dim)
      first = tokens - self.grid**2
      table = jnp.pad(table, ((0, 0), (first, 0), (0, 0))).astype(param_dtype)
    else:
      table = nnx.initializers.normal(0.02)(
        rngs.params(), (1, tokens, dim), param_dtype
      )
    self.position_embedding = nnx.Param(table)
    self.dropout = nnx.data(dropout_layer(dropout, rngs))
    self.blocks = transformer.stacked_blocks(
      count,
      rngs,
      dim,
      norm=norm,
      dropout=dropout,
      layer_scale=layer_scale,
      **block,
      **common,
    )
    self.final_norm = Norm(dim, param_dtype=param_dtype, **norm)
    zero = {"kernel_init": nnx.initializers.zeros, "rngs": rngs, **common}
    width = 2 * dim if pool == "cls_gap" else dim
    self.head = Dense(width, num_classes, **zero)
    self.registers = self.distillation = self.distillation_head = nnx.data(None)
    if distilled:
      self.distillation = nnx.Param(jnp.zeros((1, 1, dim), param_dtype))
      self.distillation_head = Dense(dim, num_classes, **zero)
    if registers:
      self.registers = nnx.Param(
        nnx.initializers.normal(0.02)(
          rngs.params(), (1, registers, dim), param_dtype
        )
      )
    self.attention_pool = nnx.data(
      AttentionPool(dim, norm=norm, rngs=rngs, **block, **common)
      if pool == "map"
      else None
    )

  def __call__(self, image_BHWC):
    """logits_BC, float32.

    With a distillation token, those of the class token in training and the mean
    of both tokens' otherwise (arXiv:2012.12877).
    """
    x_BTD = self.tokens(image_BHWC)
    logits_BC = self.head(self._pooled(x_BTD)).astype("float32")
    if self.distillation is None or not self.deterministic:
      return logits_BC
    return (logits_BC + self._distilled(x_BTD)) / 2

  def distilled(self, image_BHWC):
    """logits_BC of the distillation token, float32."""
    if self.distillation is None:
      raise ValueError("no distillation token: set config.model.distilled")
    return self._distilled(self.tokens(image_BHWC))

  def features(self, image_BHWC):
    """x_BD, of the class token, the mean over patches or the pool's query.

    With the pool "cls_gap" the first two are joined, [B, 2 D].
    """
    return self._pooled(self.tokens(image_BHWC))

  def tokens(self, image_BHWC, visible_BK=None):
    """x_BTD after the last norm: class, distillation, registers, patches.

    If visible_BK is given, int32, the patches are those at these K places.
    """
    cut = self.stem == "patch"
    x_BTD = self.patch_embedding(
      patches(image_BHWC, self.patch) if cut else image_BHWC
    )
    x_BTD = _prefixed((self.cls, self.distillation), x_BTD)
    H, W = (n // self.patch for n in image_BHWC.shape[1:3])
    x_BTD += self._positions(H, W).astype(x_BTD.dtype)
    if visible_BK is not None:
      first = self._before_patches()
      seen = jnp.take_along_axis(x_BTD[:, first:], visible_BK[..., None], 1)
      x_BTD = jnp.concatenate([x_BTD[:, :first], seen], axis=1)
    if self.registers is not None:
      first = self._before_patches()
      x_BTD = jnp.concatenate(
        [x_BTD[:, :first], _prefixed((self.registers,), x_BTD[:, first:])], 1
      )
    if self.dropout is not None:
      x_BTD = self.dropout(x_BTD)
    x_BTD, _, _ = transformer.run_blocks(
      self.blocks, x_BTD, scan=self.scan, remat=self.remat
    )
    return self.final_norm(x_BTD)

  def _before_patches(self) -> int:
    """The number of tokens that have a position and are no patches."""
    return sum(token is not None for token in (self.cls, self.distillation))

  def _positions(self, H: int, W: int) -> jax.Array:
    """The embeddings of the positions, resized for a grid of H x W patches."""
    table_1TD = self.position_embedding[...]
    if H == W == self.grid:
      return table_1TD
    first = self._before_patches()
    moved = positions.resized(table_1TD[:, first:], (self.grid,) * 2, (H, W))
    return jnp.concatenate([table_1TD[:, :first], moved], axis=1)

  def _pooled(self, x_BTD):
    if self.pool == "cls":
      return x_BTD[:, 0]
    first = self._before_patches()
    if self.registers is not None:
      first += self.registers[...].shape[1]
    patches_BTD = x_BTD[:, first:] if first else x_BTD
    if self.pool == "gap":
      return patches_BTD.mean(axis=1)
    if self.pool == "cls_gap":
      return jnp.concatenate([x_BTD[:, 0], patches_BTD.mean(axis=1)], axis=-1)
    return self.attention_pool(patches_BTD)

  def _distilled(self, x_BTD):
    x_BD = x_BTD[:, int(self.cls is not None)]
    return self.distillation_head(x_BD).astype("float32")


def _patch_embedding(stem, channels, dim, patch, norm, **common) -> nnx.Module:
  if stem == "convolutions":
    return ConvolutionalStem(channels, dim, patch, norm=norm, **common)
  init = nnx.initializers.lecun_normal()
  return Dense(patch * patch * channels, dim, kernel_init=init, **common)


def _prefixed(tokens, x_BTD) -> jax.Array:
  """x_BTD after the tokens [1, T, D] that are not None."""
  parts = [token[...] for token in tokens if token is not None]
  if not parts:
    return x_BTD
  B, _, D = x_BTD.shape
  parts = [
    jnp.broadcast_to(part.astype(x_BTD.dtype), (B, part.shape[1], D))
    for part in parts
  ]
  return jnp.concatenate([*parts, x_BTD], axis=1)


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
  position_init: str = "normal",
  registers: int = 0,
  distilled: bool = False,
  stem: str = "patch",
  activation: str = "gelu_exact",
  norm_eps: float = 1e-6,
  dropout: float = 0.0,
  layer_scale: float | None = None,
  scan: bool = True,
  remat: str = "none",
  matmul: str | None = None,
  dtype: str = "float32",
  param_dtype: str = "float32",
) -> Model:
  """A vision transformer, image_BHWC -> logits_BC in float32.

  arXiv:2010.11929, without the hidden layer before the logits and with learned
  positions. Kernels are drawn from Xavier's uniform distribution; the last one
  is zero. Images of another size than `image_size` get the bicubic
  interpolation of the learned positions, so that a model can be trained at one
  size and applied, or trained on, at another. The method "features" returns
  x_BD, the input of the last layer; "tokens" returns x_BTD, from which it is
  taken; "distilled" returns the logits of the distillation token.

  Args:
    num_classes: C of the logits.
    channels: C of the images.
    image_size: height and width of the images for which positions are learned,
      a multiple of `patch`.
    variant: size and patch, such as "B/16"; sizes are Ti, S, B and L. It sets
      layers, dim, heads and patch where they are None.
    layers: number of blocks.
    dim: D.
    heads: N, a divisor of D.
    hidden: F; 4 D if None.
    patch: height and width of a patch.
    pool: "cls", a class token; "gap", the mean over patches; "cls_gap", these
      two joined, as in DINOv2; or "map", what a learned query collects from the
      patches by attention.
    position_init: of the learned positions, "normal", or "sinusoidal", sines
      and cosines of the row and the column.
    registers: number of further learned tokens, without positions, of which no
      output is read (arXiv:2309.16588).
    distilled: whether there is a distillation token with a last layer of its
      own, for the task wrapper `distill` (DeiT, arXiv:2012.12877).
    stem: what makes tokens of an image: "patch", one dense layer; or
      "convolutions" (arXiv:2106.14881), which learns faster from few images.
    activation: "gelu_exact", "gelu" (tanh approximation) or "swiglu".
    norm_eps: added to the variance.
    dropout: rate, of the embeddings and of each addition to the residual
      stream.
    layer_scale: the initial value of learned factors, one for each channel, by
      which each addition to the residual stream is multiplied (LayerScale,
      arXiv:2103.17239); None has no such factors.
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
    "position_init": choose("position_init", position_init, POSITION_INITS),
    "registers": registers,
    "distilled": distilled,
    "stem": choose("stem", stem, STEMS),
    "norm": {"eps": norm_eps},
    "dropout": dropout,
    "layer_scale": layer_scale,
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
  return variant_of(variant, VARIANTS)


def variant_of(variant: str, known: Mapping[str, tuple]) -> tuple:
  """The sizes of a variant such as "B/16", and the patch.

  Raises:
    ValueError: the variant is not of this form, or its size is not known.
  """
  match = re.fullmatch(r"(\w+)/(\d+)", variant)
  if not match or match[1] not in known:
    raise ValueError(
      f'variant = "{variant}" is not SIZE/PATCH with a size of: '
      + ", ".join(known)
    )
  return *known[match[1]], int(match[2])


SHARDING = [*transformer.SHARDING, (r"head/kernel", P(None, "tensor"))]
