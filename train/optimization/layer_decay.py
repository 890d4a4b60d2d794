"""Layer-wise learning rate decay: lower layers have smaller updates."""

import math
import re

import jax
import jax.numpy as jnp

from train.optimization import parameter_rules
from train.types import PyTree

_STACKED = re.compile(r"(^|/)blocks/")
# Parameters used before the first layer.
_BELOW = re.compile(r"(^|/)(\w*_)?embedding|(^|/)cls$|(^|/)patch")
_UNEMBEDDING = re.compile(r"(^|/)unembedding")


def check(decay: float) -> None:
  """Raises ValueError unless 0 < decay <= 1."""
  if not isinstance(decay, int | float) or not 0 < decay <= 1:
    raise ValueError(f"layer_decay={decay!r} is not in (0, 1]")


def scaled(updates: PyTree, decay: float) -> PyTree:
  """Returns the updates, each multiplied by a power of `decay`.

  The exponent counts the layers above a parameter, including the head. In
  stacked layers ("blocks/…", with a leading axis of size L) it is L - l for
  layer l = 0 … L - 1. For embeddings it is L + 1; for the head and the last
  norm it is 0.

  Raises:
    ValueError: there are no stacked layers.
  """
  paths = parameter_rules.paths(updates)
  depths = [
    leaf.shape[0]
    for path, leaf in parameter_rules.flat(updates).items()
    if _STACKED.search(path)
  ]
  if not depths:
    raise ValueError(
      "layer_decay needs stacked layers, with paths such as blocks/…"
    )

  def one(path: str, update):
    if _STACKED.search(path):
      L = update.shape[0]
      scale_L = jnp.asarray([decay ** (L - i) for i in range(L)], update.dtype)
      return update * scale_L.reshape(L, *(1,) * (update.ndim - 1))
    if _BELOW.search(path) and not _UNEMBEDDING.search(path):
      return update * math.pow(decay, max(depths) + 1)
    return update

  return jax.tree.map(one, paths, updates)
