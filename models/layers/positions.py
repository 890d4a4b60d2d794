"""Positions of tokens, other than by a learned table.

The shape legend is in models/layers/basic.py; Q counts the buckets.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx


def sinusoids(positions_BT: jax.Array, dim: int) -> jax.Array:
  """Sines and cosines of positions, float32 [B, T, D] (arXiv:1706.03762).

  Entry 2i is sin(t / 10000^(2i/D)), entry 2i + 1 its cosine.
  """
  rates_I = 10000.0 ** (-jnp.arange(0, dim, 2, dtype=jnp.float32) / dim)
  angles_BTI = positions_BT.astype(jnp.float32)[..., None] * rates_I[None, None]
  pairs = jnp.stack([jnp.sin(angles_BTI), jnp.cos(angles_BTI)], axis=-1)
  return pairs.reshape(*positions_BT.shape, -1)[..., :dim]


def grid_sinusoids(grid: tuple[int, int], dim: int) -> jax.Array:
  """Sines and cosines of rows and columns, float32 [1, T, D], row by row.

  Half of D is for the row and half for the column; D is a multiple of 4.
  """
  rows, columns = (
    sinusoids(jnp.arange(size)[None], dim // 2)[0] for size in grid
  )
  H, W = grid
  pairs = [
    jnp.broadcast_to(rows[:, None], (H, W, dim // 2)),
    jnp.broadcast_to(columns[None], (H, W, dim // 2)),
  ]
  return jnp.concatenate(pairs, axis=-1).reshape(1, H * W, dim)


def resized(
  table_1TD: jax.Array, old: tuple[int, int], new: tuple[int, int]
) -> jax.Array:
  """A table of positions on a grid, interpolated for another grid.

  Bicubic convolution (Keys 1981) with a = -0.75, without smoothing where the
  grid becomes smaller, and repeating the border, as in most vision
  transformers.

  Args:
    table_1TD: T = height * width positions, row by row.
    old: height and width of its grid.
    new: height and width of the grid of the result.
  """
  grid = table_1TD.astype(jnp.float32).reshape(*old, table_1TD.shape[-1])
  rows, columns = (_bicubic(*pair) for pair in zip(old, new, strict=True))
  moved = jnp.einsum("Hh,Ww,hwD->HWD", rows, columns, grid)
  return moved.reshape(1, -1, table_1TD.shape[-1]).astype(table_1TD.dtype)


def _bicubic(old: int, new: int, a: float = -0.75) -> np.ndarray:
  """The weights [new, old] of a row of pixels in a resized row."""
  weights = np.zeros((new, old))
  for place in range(new):
    centre = (place + 0.5) * old / new - 0.5
    for tap in range(math.floor(centre) - 1, math.floor(centre) + 3):
      x = abs(centre - tap)
      if x <= 1:
        weight = (a + 2) * x**3 - (a + 3) * x**2 + 1
      else:
        weight = a * (x**3 - 5 * x**2 + 8 * x - 4)
      weights[place, min(max(tap, 0), old - 1)] += weight
  return weights.astype(np.float32)


def bucket(
  distance: jax.Array, both_ways: bool, buckets: int, farthest: int
) -> jax.Array:
  """Returns the bucket of key minus query position (T5, arXiv:1910.10683).

  Half of the buckets hold one distance each; the sizes of the others grow
  logarithmically up to `farthest`, and the last holds all larger distances.

  Args:
    distance: int32, of any shape.
    both_ways: whether half of the buckets are for keys after the query; if
      False those count as distance 0.
    buckets: the number of buckets, Q.
    farthest: the distance from which on all share a bucket.
  """
  first = jnp.zeros_like(distance)
  if both_ways:
    buckets //= 2
    first = jnp.where(distance > 0, buckets, 0)
    distance = jnp.abs(distance)
  else:
    distance = jnp.maximum(-distance, 0)
  exact = buckets // 2
  ratio = jnp.maximum(distance, 1).astype(jnp.float32) / exact
  share = jnp.log(ratio) / math.log(farthest / exact)
  far = exact + (share * (buckets - exact)).astype(jnp.int32)
  far = jnp.minimum(far, buckets - 1)
  return first + jnp.where(distance < exact, distance, far)


class RelativeBias(nnx.Module):
  """A bias of the scores of all layers, by distance and head (T5).

  Attributes:
    embedding: [Q, N], initialized from normal(std).
  """

  def __init__(
    self,
    heads: int,
    *,
    both_ways: bool,
    buckets: int,
    farthest: int,
    std: float,
    rngs: nnx.Rngs,
    param_dtype: jnp.dtype = jnp.float32,
  ):
    self.settings = (both_ways, buckets, farthest)
    self.embedding = nnx.Param(
      nnx.initializers.normal(std)(rngs.params(), (buckets, heads), param_dtype)
    )

  def __call__(self, t_T: jax.Array, s_S: jax.Array) -> jax.Array:
    """Returns bias_1NTS float32 of queries at t_T and keys at s_S."""
    bucket_TS = bucket(s_S[None] - t_T[:, None], *self.settings)
    bias_TSN = self.embedding[...].astype(jnp.float32)[bucket_TS]
    return jnp.transpose(bias_TSN, (2, 0, 1))[None]
