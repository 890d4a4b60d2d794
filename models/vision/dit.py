"""The diffusion transformer.

The shape legend is in models/layers/basic.py; images are B, height, width, C.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import PartitionSpec as P

from models import Model, pure
from models.layers import image_blocks, transformer
from models.layers.attention import SelfAttention
from models.layers.basic import Dense, Embedding, along_last, float_dtype
from models.layers.encoder_decoder_blocks import Attention
from models.vision.vit import patches

_WAVES = 256  # the size of the embedding of the time before its layers
_BYTES = 256  # the vocabulary of captions


class AdaptiveBlock(nnx.Module):
  """A block whose norms are scaled, shifted and gated by a condition.

  With `text` it also attends to the tokens of a text, through a gate of zeros
  in the beginning.
  """

  def __init__(
    self,
    dim: int,
    *,
    attention: dict,
    feed_forward: dict,
    text: bool = False,
    **common,
  ):
    self.attention = SelfAttention(dim, **attention, **common)
    self.feed_forward = transformer.FeedForward(dim, **feed_forward, **common)
    zero = {"kernel_init": nnx.initializers.zeros}
    self.modulation = Dense(dim, 6 * dim, **common | zero)
    self.look, self.gate = nnx.data(None), nnx.data(None)
    if text:
      init = common["kernel_init"]
      heads = {k: attention[k] for k in ("heads", "head_dim")}
      how = {"scale_scores": True, "query_init": init, **heads, **common}
      self.look = nnx.data(Attention(dim, **how))
      self.gate = nnx.data(nnx.Param(jnp.zeros((dim,), common["param_dtype"])))

  def __call__(
    self,
    x_BTD,
    cache=None,
    length=0,
    *,
    condition_BD,
    text_BSD=None,
    seen_BS=None,
  ):
    """Returns (x_BTD, cache, {}); see transformer.Block."""
    modulation = self.modulation(jax.nn.silu(condition_BD))[:, None]
    shift1, scale1, gate1, shift2, scale2, gate2 = jnp.split(modulation, 6, -1)
    y_BTD = normalized(x_BTD) * (1 + scale1) + shift1
    x_BTD += gate1 * self.attention(y_BTD)[0]
    if self.look is not None:
      y_BTD = self.look.look(
        normalized(x_BTD),
        *self.look.remember(text_BSD),
        mask_BNTS=seen_BS[:, None, None],
      )
      x_BTD += along_last(self.gate[...].astype(y_BTD.dtype), 3) * y_BTD
    y_BTD = normalized(x_BTD) * (1 + scale2) + shift2
    return x_BTD + gate2 * self.feed_forward(y_BTD), cache, {}


class DiT(nnx.Module):
  """Patches with a time and a class, to patches. See `dit`."""

  def __init__(
    self, *, channels, image_size, num_classes, patch, count, dim, scan, remat,
    text, rngs, attention, feed_forward, **common,
  ):  # fmt: skip
    self.patch, self.num_classes = patch, num_classes
    self.scan, self.remat, self.channels = scan, remat, channels
    self.side = image_size // patch
    layer = {"rngs": rngs, **common}
    self.patch_embedding = Dense(patch * patch * channels, dim, **layer)
    small = {"kernel_init": nnx.initializers.normal(0.02)}
    self.time1 = Dense(_WAVES, dim, **layer | small)
    self.time2 = Dense(dim, dim, **layer | small)
    kinds = {k: common[k] for k in ("dtype", "param_dtype")}
    self.class_embedding = Embedding(num_classes + 1, dim, rngs=rngs, **kinds)
    self.blocks = transformer.stacked_blocks(
      count,
      rngs,
      dim,
      kind=AdaptiveBlock,
      attention=attention,
      feed_forward=feed_forward,
      text=text > 0,
      **common,
    )
    zero = {"kernel_init": nnx.initializers.zeros}
    self.modulation = Dense(dim, 2 * dim, **layer | zero)
    self.head = Dense(dim, patch * patch * channels, **layer | zero)
    self.tokens, self.order = nnx.data(None), nnx.data(None)
    if text:
      self.tokens = nnx.data(Embedding(_BYTES, dim, rngs=rngs, **kinds))
      self.order = nnx.data(Embedding(text, dim, rngs=rngs, **kinds))

  def __call__(self, image_BHWC, time_B, label_B=None):
    """Returns the shape of the images, float32; see `dit`."""
    x_BTD = self.patch_embedding(patches(image_BHWC, self.patch))
    place_TD = places(self.side, x_BTD.shape[-1])
    x_BTD += jnp.asarray(place_TD, x_BTD.dtype)[None]
    wave_BD = image_blocks.waves(time_B, _WAVES, shift=1.0)
    condition_BD = self.time2(jax.nn.silu(self.time1(wave_BD)))
    where = {}
    if self.tokens is not None:
      text_BSD, seen_BS = self.read(label_B)
      where = {"text_BSD": text_BSD, "seen_BS": seen_BS}
      share_BS1 = (seen_BS / jnp.sum(seen_BS, 1, keepdims=True))[..., None]
      condition_BD += jnp.sum(text_BSD * share_BS1, 1).astype(text_BSD.dtype)
      label_B = None
    if label_B is None:
      label_B = jnp.full(time_B.shape, self.num_classes, jnp.int32)
    condition_BD += self.class_embedding(label_B)
    x_BTD, _, _ = transformer.run_blocks(
      self.blocks,
      x_BTD,
      scan=self.scan,
      remat=self.remat,
      condition_BD=condition_BD,
      **where,
    )
    modulation = self.modulation(jax.nn.silu(condition_BD))[:, None]
    shift, scale = jnp.split(modulation, 2, -1)
    x_BTI = self.head(normalized(x_BTD) * (1 + scale) + shift)
    return unpatched(x_BTI, self.side, self.channels).astype(jnp.float32)

  def read(self, tokens_BS):
    """(text_BSD, seen_BS) of a text: its bytes and their places."""
    S = tokens_BS.shape[1]
    x_BSD = self.tokens(tokens_BS) + self.order(jnp.arange(S))[None]
    # The first place is always seen, also of no text.
    seen_BS = (tokens_BS > 0) | (jnp.arange(S) == 0)[None]
    return normalized(x_BSD), seen_BS


def normalized(x: jax.Array) -> jax.Array:
  """Layer norm without parameters, in float32; returned in x's dtype."""
  y = x.astype(jnp.float32)
  y -= jnp.mean(y, axis=-1, keepdims=True)
  y *= jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + 1e-6)
  return y.astype(x.dtype)


def places(side: int, dim: int) -> np.ndarray:
  """Sines and cosines of columns, then of rows; [side * side, D] float32."""
  rate = 10_000 ** -(np.arange(dim // 4) / (dim // 4))
  angle = np.arange(side)[:, None] * rate[None]
  wave = np.concatenate([np.sin(angle), np.cos(angle)], axis=1)
  both = [np.tile(wave, (side, 1)), np.repeat(wave, side, axis=0)]
  return np.concatenate(both, axis=1).astype(np.float32)


def unpatched(x_BTI: jax.Array, side: int, channels: int) -> jax.Array:
  """The inverse of models.vision.vit.patches for square images."""
  B, _, I = x_BTI.shape  # noqa: E741
  size = round((I // channels) ** 0.5)
  x = x_BTI.reshape(B, side, side, size, size, channels)
  return x.swapaxes(2, 3).reshape(B, side * size, side * size, channels)


def dit(
  *,
  channels: int,
  image_size: int,
  num_classes: int | None = None,
  patch: int = 2,
  layers: int = 12,
  dim: int = 384,
  heads: int = 6,
  hidden: int | None = None,
  text: int = 0,
  scan: bool = True,
  remat: str = "none",
  dtype: str = "float32",
  param_dtype: str = "float32",
) -> Model:
  """A diffusion transformer (Peebles and Xie, 2023, arXiv:2212.09748).

  image_BHWC, time_B, label_B -> image_BHWC in float32, with "adaLN-Zero": each
  block begins as the identity. The time is a number from 0 to about 1000.
  label_B is int32; num_classes, or None for the whole batch, means no class.
  DiT-S/2 has the default sizes; XL/2 has 28 layers, dim 1152 and 16 heads.

  With `text`, tokens_BS take the place of label_B: the bytes of a text, to
  which each block attends (cross-attention, as in arXiv:2112.10752) and whose
  mean joins the time. Zeros alone are no text.

  Args:
    channels: C of the images.
    image_size: height and width of the images, a multiple of `patch`.
    num_classes: number of classes; None for no classes.
    patch: height and width of a patch.
    layers: number of blocks.
    dim: D, a multiple of 4 and of `heads`.
    heads: N.
    hidden: F; 4 D if None.
    text: S, the largest number of bytes of a text; 0 for labels.
    scan: whether one layer is compiled and looped over.
    remat: which activations the backward pass computes again; see `vit`.
    dtype: of the computation.
    param_dtype: of the parameters.

  Raises:
    ValueError: a choice is unknown, or a size does not divide another.
  """
  for what, whole, part in (
    ("image_size", image_size, patch),
    ("dim", dim, heads),
    ("dim", dim, 4),
  ):
    if whole % part:
      raise ValueError(f"{what} = {whole} is not a multiple of {part}")
  init = nnx.initializers.xavier_uniform()
  config = {
    "channels": channels,
    "image_size": image_size,
    "num_classes": num_classes or 0,
    "patch": patch,
    "count": layers,
    "dim": dim,
    "scan": scan,
    "remat": remat,
    "text": text,
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
      "activation": "gelu",
      "out_init": init,
    },
    "bias": True,
    "kernel_init": init,
    "dtype": float_dtype("dtype", dtype),
    "param_dtype": float_dtype("param_dtype", param_dtype),
  }
  return pure(lambda rngs: DiT(rngs=rngs, **config))


SHARDING = [
  *transformer.SHARDING,
  (r"^modulation/kernel", P(None, "tensor")),
]
