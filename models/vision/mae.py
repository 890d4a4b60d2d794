"""Masked autoencoders: a transformer of visible patches and a light decoder.

The shape legend is in models/layers/basic.py; K counts the visible patches, and
I the numbers of a patch.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import nnx

from common import names
from models import Model, pure
from models.layers import transformer
from models.layers.basic import Dense, Norm, float_dtype
from models.layers.positions import grid_sinusoids
from models.vision import vit


class MaskedAutoencoder(NamedTuple):
  """Two networks.

  encoder: a `vit`; its method "tokens" takes visible_BK and returns x_BTD.
  decoder: x_BTD, visible_BK -> patches_BTI, float32.
  """

  encoder: Model
  decoder: Model


class Decoder(nnx.Module):
  """Visible tokens to all patches. `mae` documents the arguments."""

  def __init__(
    self,
    inputs,
    outputs,
    *,
    grid,
    first,
    count,
    dim,
    norm,
    dtype,
    param_dtype,
    rngs,
    **block,
  ):
    self.first = first
    common = {"dtype": dtype, "param_dtype": param_dtype}
    init = block["kernel_init"]
    self.embedding = Dense(inputs, dim, kernel_init=init, rngs=rngs, **common)
    self.mask_token = nnx.Param(
      nnx.initializers.normal(0.02)(rngs.params(), (1, 1, dim), param_dtype)
    )
    table = jnp.pad(grid_sinusoids(grid, dim), ((0, 0), (first, 0), (0, 0)))
    self.position_embedding = nnx.Param(table.astype(param_dtype))
    self.blocks = transformer.stacked_blocks(
      count, rngs, dim, norm=norm, dropout=0.0, **block, **common
    )
    self.final_norm = Norm(dim, param_dtype=param_dtype, **norm)
    self.head = Dense(dim, outputs, kernel_init=init, rngs=rngs, **common)

  def __call__(self, x_BTD, visible_BK):
    """patches_BTI, float32.

    Args:
      x_BTD: `first` further tokens and the visible patches, in this order.
      visible_BK: int32, the places of the visible patches.
    """
    x = self.embedding(x_BTD)
    before, seen = x[:, : self.first], x[:, self.first :]
    table = self.position_embedding[...].astype(x.dtype)
    B, _, D = x.shape
    T = table.shape[1] - self.first
    empty = jnp.broadcast_to(self.mask_token[...].astype(x.dtype), (B, T, D))
    x = empty.at[jnp.arange(B)[:, None], visible_BK].set(seen)
    x = jnp.concatenate([before, x], axis=1) + table
    x, _, _ = transformer.run_blocks(self.blocks, x)
    return self.head(self.final_norm(x)[:, self.first :]).astype("float32")


def mae(
  *,
  encoder: Mapping[str, Any],
  channels: int,
  image_size: int,
  num_classes: int | None = None,
  layers: int = 8,
  dim: int = 512,
  heads: int = 16,
  hidden: int | None = None,
  activation: str = "gelu_exact",
  norm_eps: float = 1e-6,
  dtype: str = "float32",
  param_dtype: str = "float32",
) -> MaskedAutoencoder:
  """A masked autoencoder (He et al., 2022, arXiv:2111.06377).

  Another run begins with the encoder alone, a `vit`, by init_from =
  dict(path=WORKDIR, network="encoder"). Both tables of positions begin as sines
  and cosines and are learned.

  Args:
    encoder: the name "vit" and its arguments; its pool is "cls" or "gap", and
      its last layer is not used.
    channels: C of the images.
    image_size: height and width of the images.
    num_classes: of the encoder's last layer; None is 1.
    layers: number of blocks of the decoder.
    dim: D of the decoder.
    heads: of the decoder, a divisor of D.
    hidden: F of the decoder; 4 D if None.
    activation: of the decoder; see `vit`.
    norm_eps: of the decoder.
    dtype: of the computation.
    param_dtype: of the parameters.

  Raises:
    UserError: an argument of the encoder is unknown.
    ValueError: the encoder is no `vit` or has a distillation token, or a size
      does not divide another.
  """
  own = dict(encoder)
  if own.pop("name", None) != "vit" or own.get("distilled"):
    raise ValueError('the encoder is not a "vit" without distillation token')
  common = {"dtype": dtype, "param_dtype": param_dtype}
  offered = {
    "channels": channels,
    "image_size": image_size,
    "num_classes": num_classes or 1,
    "position_init": "sinusoidal",
    **common,
  }
  where = "config.model.encoder"
  made = names.call(vit.vit, where=where, settings=own, offered=offered)
  if dim % heads or dim % 4:
    raise ValueError(f"dim = {dim} is not a multiple of {heads} and of 4")
  sizes = vit.sizes(own.get("variant", "S/16"))
  inputs, patch = own.get("dim") or sizes[1], own.get("patch") or sizes[3]
  init = nnx.initializers.xavier_uniform()
  config = {
    "grid": (image_size // patch,) * 2,
    "first": (own.get("pool", "cls") == "cls") + own.get("registers", 0),
    "count": layers,
    "dim": dim,
    "norm": {"eps": norm_eps},
    "bias": True,
    "kernel_init": init,
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
    "dtype": float_dtype("dtype", dtype),
    "param_dtype": float_dtype("param_dtype", param_dtype),
  }
  outputs = patch * patch * channels
  return MaskedAutoencoder(
    made, pure(lambda rngs: Decoder(inputs, outputs, rngs=rngs, **config))
  )


SHARDING = vit.SHARDING
