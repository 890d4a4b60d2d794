"""Features of regions: RoIAlign over the levels of a pyramid.

R is a region; the shape legend is in models/layers/basic.py.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp


def level_of(boxes_BR4: jax.Array, strides: Sequence[int]) -> jax.Array:
  """The level from which a box takes its features, int32 [B, R].

  A box with sides of 224 pixels takes stride 16, one of half the size half the
  stride (Lin et al., 2017, arXiv:1612.03144, equation 1), within `strides`,
  which double from level to level.
  """
  sides = jnp.maximum(boxes_BR4[..., 2:] - boxes_BR4[..., :2], 0.0)
  side_BR = jnp.sqrt(jnp.maximum(sides.prod(-1), 1e-6))
  level_BR = jnp.floor(4 + jnp.log2(side_BR / 224) + 1e-6)
  level_BR -= strides[0].bit_length() - 1
  return jnp.clip(level_BR, 0, len(strides) - 1).astype(jnp.int32)


def roi_align(
  levels: Sequence[jax.Array],
  strides: Sequence[int],
  boxes_BR4: jax.Array,
  of_BR: jax.Array,
  *,
  size: int = 7,
  samples: int = 2,
  aligned: bool = False,
) -> jax.Array:
  """Features of boxes, [B, R, size, size, C] in float32, by one gather.

  He et al., 2017, arXiv:1703.06870, section 3: a box is divided into size x
  size bins, each the mean of samples x samples bilinear interpolations. Equal
  to torchvision.ops.roi_align with sampling_ratio=samples.

  Args:
    levels: features [B, h, w, C] of each level.
    strides: pixels between the cells of a level.
    boxes_BR4: in pixels; no gradient reaches them.
    of_BR: the level of each box.
    size: bins of each side.
    samples: samples of each side of a bin.
    aligned: whether the centre of the first cell is at half a stride, instead
      of at 0.
  """
  boxes_BR4 = jax.lax.stop_gradient(boxes_BR4)
  B, R = of_BR.shape
  C = levels[0].shape[-1]
  flat_BPC = jnp.concatenate(
    [x.astype(jnp.float32).reshape(B, -1, C) for x in levels], axis=1
  )
  heights, widths = (jnp.asarray([x.shape[i] for x in levels]) for i in (1, 2))
  begins = jnp.cumsum(heights * widths) - heights * widths
  stride_BR1 = jnp.asarray(strides, jnp.float32)[of_BR][..., None]
  scaled_BR4 = boxes_BR4 / stride_BR1 - (0.5 if aligned else 0.0)
  low, extent = scaled_BR4[..., :2], scaled_BR4[..., 2:] - scaled_BR4[..., :2]
  if not aligned:
    extent = jnp.maximum(extent, 1.0)
  share_S = (jnp.arange(size * samples) + 0.5) / (size * samples)

  def along(axis, counts):
    """Cells before and after, share of the latter, inside: [B, R, S]."""
    at = low[..., axis, None] + share_S[None, None] * extent[..., axis, None]
    count = counts[of_BR][..., None]
    inside = (at >= -1) & (at <= count)
    at = jnp.clip(at, 0.0, count - 1.0)
    before = jnp.floor(at).astype(jnp.int32)
    after = jnp.minimum(before + 1, count - 1)
    return before, after, at - before, inside

  x0, x1, u, in_x = along(0, widths)
  y0, y1, v, in_y = along(1, heights)
  width_BR1 = widths[of_BR][..., None]
  begin_BR1 = begins[of_BR][..., None]
  total = 0.0
  for y, wy in ((y0, 1 - v), (y1, v)):
    for x, wx in ((x0, 1 - u), (x1, u)):
      row_BRS = begin_BR1 + y * width_BR1
      cell = (row_BRS[..., :, None] + x[..., None, :]).reshape(B, -1)
      weight = ((wy * in_y)[..., :, None] * (wx * in_x)[..., None, :]).reshape(
        B, -1, 1
      )
      total += (
        jax.vmap(lambda flat, place: flat[place])(flat_BPC, cell) * weight
      )
  total = total.reshape(B, R, size, samples, size, samples, C)
  return total.mean((3, 5))
