"""Patches that are hidden, and the error of their reconstruction.

He et al., 2022, arXiv:2111.06377. T counts the patches of an image, K the
visible ones, I the numbers of a patch.
"""

import jax
import jax.numpy as jnp

# Added to the variance of a patch.
_EPS = 1e-6


def visible(noise_BT: jax.Array, ratio: float) -> tuple[jax.Array, jax.Array]:
  """Which patches stay visible: those of the smallest noise.

  Args:
    noise_BT: a number for each patch.
    ratio: the share of the patches that is hidden.

  Returns:
    (visible_BK, int32 places by ascending noise; hidden_BT, float32, 1 on what
    is hidden), where K = int(T * (1 - ratio)).
  """
  B, T = noise_BT.shape
  order_BT = jnp.argsort(noise_BT, axis=1)
  visible_BK = order_BT[:, : int(T * (1 - ratio))].astype(jnp.int32)
  rows_B1 = jnp.arange(B)[:, None]
  return visible_BK, jnp.ones((B, T)).at[rows_B1, visible_BK].set(0.0)


def standardized(
  patches_BTI: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """(standardized, mean, deviation) of each patch by its own statistics.

  The variance is the unbiased one, as in the authors' implementation.
  """
  x = patches_BTI.astype(jnp.float32)
  mean = x.mean(-1, keepdims=True)
  deviation = jnp.sqrt(x.var(-1, keepdims=True, ddof=1) + _EPS)
  return (x - mean) / deviation, mean, deviation


def error(found_BTI: jax.Array, wanted_BTI: jax.Array) -> jax.Array:
  """The mean squared error of each patch, float32 [B, T]."""
  difference = found_BTI.astype(jnp.float32) - wanted_BTI.astype(jnp.float32)
  return jnp.square(difference).mean(-1)


def image_of(
  patches_BTI: jax.Array, shape: tuple[int, ...], size: int
) -> jax.Array:
  """Images [B, H, W, C] of `shape` from patches of size x size pixels."""
  B, H, W, C = shape
  x = patches_BTI.reshape(B, H // size, W // size, size, size, C)
  return x.swapaxes(2, 3).reshape(B, H, W, C)
