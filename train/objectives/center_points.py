"""Heat around the centres of objects, and boxes read at its peaks."""

import jax
import jax.numpy as jnp

from train.objectives import boxes


def targets(boxes_BN4, classes_BN, real_BN, shape):
  """The heat to learn, float32 [B, h, w, C], and the cells of the centres.

  Args:
    boxes_BN4: in cells.
    classes_BN: integers.
    real_BN: 1 on boxes, 0 on padding.
    shape: of the heat.

  Returns:
    the heat, 1 at centres, and int32 [B, N, 2], the row and column of each.
  """
  _, h, w, num_classes = shape
  low_BN2, high_BN2 = boxes_BN4[..., :2], boxes_BN4[..., 2:]
  cell_BN2 = jnp.floor((low_BN2 + high_BN2) / 2)
  cell_BN2 = jnp.clip(cell_BN2, 0, jnp.asarray([w - 1, h - 1])[None, None])
  # A sixth of the box, but at least the two cells beside the centre.
  sigma_BN2 = jnp.maximum((high_BN2 - low_BN2) / 6, 0.5)

  def along(size, axis):
    place = jnp.arange(size)[None, None]
    distance = place - cell_BN2[..., axis, None]
    return jnp.exp(-0.5 * (distance / sigma_BN2[..., axis, None]) ** 2)

  heat_BNHW = along(h, 1)[..., None] * along(w, 0)[:, :, None]
  kind_BNC = jax.nn.one_hot(classes_BN, num_classes) * real_BN[..., None]
  heat_BNHWC = heat_BNHW[..., None] * kind_BNC[:, :, None, None]
  return heat_BNHWC.max(1), cell_BN2[..., ::-1].astype(jnp.int32)


def focal(logits: jax.Array, target: jax.Array) -> jax.Array:
  """The focal loss of CenterNet's equation 1 for each cell and class."""
  log_p, log_q = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
  p = jax.nn.sigmoid(logits)
  at_centre = -((1 - p) ** 2) * log_p
  elsewhere = -((1 - target) ** 4) * p**2 * log_q
  return jnp.where(target == 1.0, at_centre, elsewhere)


def centre_iou(sides_BHW4, boxes_BN4, cell_BN2) -> jax.Array:
  """IoU [B, N] of each box with the one that is predicted at its centre."""

  def at(sides_HW4, cell_N2):
    return sides_HW4[cell_N2[:, 0], cell_N2[:, 1]]

  sides_BN4 = jax.vmap(at)(sides_BHW4, cell_BN2)
  points_BN2 = cell_BN2[..., ::-1] + 0.5
  return boxes.overlap(boxes.from_sides(points_BN2, sides_BN4), boxes_BN4)


def decoded(found, stride, count: int) -> dict[str, jax.Array]:
  """The strongest peaks: boxes [B, K, 4] in pixels, scores and classes [B, K].

  A peak is a cell with the largest heat of its class among its neighbours. A
  grid with fewer than `count` cells has fewer peaks.
  """
  heat_BHWC = jax.nn.sigmoid(found["heat"])
  B, h, w, C = heat_BHWC.shape
  around = jax.lax.reduce_window(
    heat_BHWC, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 1, 1, 1), "SAME"
  )
  peaks = jnp.where(heat_BHWC == around, heat_BHWC, 0.0).reshape(B, -1)
  scores_BK, place_BK = jax.lax.top_k(peaks, min(count, h * w * C))
  cell_BK, kind_BK = place_BK // C, place_BK % C
  row_BK, column_BK = cell_BK // w, cell_BK % w
  sides_BK4 = jnp.take_along_axis(
    found["sides"].reshape(B, h * w, 4), cell_BK[..., None], axis=1
  )
  centre_BK2 = jnp.stack([column_BK, row_BK], -1) + 0.5
  boxes_BK4 = boxes.from_sides(centre_BK2, sides_BK4)
  boxes_BK4 *= jnp.tile(stride, 2)[None, None]
  return {"boxes": boxes_BK4, "scores": scores_BK, "classes": kind_BK}
