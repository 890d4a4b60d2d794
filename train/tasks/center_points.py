"""Detection by the centres of objects, without anchors."""

import jax
import jax.numpy as jnp

from models import Model
from train import types

# What the axes of the fields mean; see common/leaf.py.
AXES = {
  "image": ("height", "width", "channel"),
  "boxes": ("box", "coordinate"),
  "boxes_mask": ("box",),
  "classes": ("box",),
}


def center_points(
  model: Model, *, detections: int = 32, box_weight: float = 1.0
) -> types.Task:
  """Finds a peak of heat at the centre of each object, and its box there.

  Zhou et al., 2019, arXiv:1904.07850: the heat of a class is a Gaussian around
  each centre, learned by the focal loss that is reduced near centres (equation
  1, alpha = 2, beta = 4). A box is learned by 1 - IoU at the cell of its
  centre, from the distances to its four sides.

  Batch: image [B, H, W, C] float; boxes [B, N, 4], each (x0, y0, x1, y1) in
  pixels; boxes_mask [B, N]; classes [B, N] int32; mask [B]. The loss of an
  image is divided by the number of its boxes, at least 1.

  Args:
    model: image_BHWC -> {"heat": logits [B, h, w, C], "sides": [B, h, w, 4]},
      on a grid of H / h by W / w pixels; the sides are in cells.
    detections: K, the number of boxes of the prediction "detections".
    box_weight: the weight of the boxes' loss beside the heat's.
  """

  def apply(variables, batch, **how):
    params, model_state = variables.params, variables.model_state
    return model.apply(params, model_state, batch["image"], **how)

  def loss(variables, batch, context):
    found, model_state = apply(
      variables, batch, rng=context.rng, train=context.train
    )
    stride = _stride(batch["image"], found["heat"])
    boxes_BN4 = batch["boxes"] / jnp.tile(stride, 2)[None, None]
    real_BN = batch["boxes_mask"] * _real(boxes_BN4)
    heat_BHWC, cell_BN2 = targets(
      boxes_BN4, batch["classes"], real_BN, found["heat"].shape
    )
    focal_B = focal(found["heat"], heat_BHWC).sum((1, 2, 3))
    iou_BN = centre_iou(found["sides"], boxes_BN4, cell_BN2)
    count_B = jnp.maximum(real_BN.sum(1), 1.0)
    missed_B = ((1.0 - iou_BN) * real_BN).sum(1)
    mask_B = batch["mask"]
    mean = types.mean_of((focal_B + box_weight * missed_B) / count_B, mask_B)
    measured = {
      "heat_loss": types.mean_of(focal_B / count_B, mask_B),
      "iou_at_centres": types.mean_of(iou_BN, real_BN * mask_B[:, None]),
    }
    return mean, types.Aux(model_state, measured)

  def detected(variables, batch, rng):
    del rng
    found, _ = apply(variables, batch)
    return decoded(found, _stride(batch["image"], found["heat"]), detections)

  return types.Task(
    types.init_of(model), {"loss": loss}, {"detections": detected}
  )


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
  centre_BN2 = cell_BN2[..., ::-1] + 0.5
  low_BN2 = centre_BN2 - sides_BN4[..., :2]
  high_BN2 = centre_BN2 + sides_BN4[..., 2:]

  def area(low, high):
    return jnp.prod(jnp.maximum(high - low, 0.0), axis=-1)

  shared_BN = area(
    jnp.maximum(low_BN2, boxes_BN4[..., :2]),
    jnp.minimum(high_BN2, boxes_BN4[..., 2:]),
  )
  both_BN = area(low_BN2, high_BN2) + area(
    boxes_BN4[..., :2], boxes_BN4[..., 2:]
  )
  return shared_BN / jnp.maximum(both_BN - shared_BN, 1e-6)


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
  corners = (centre_BK2 - sides_BK4[..., :2], centre_BK2 + sides_BK4[..., 2:])
  boxes_BK4 = jnp.concatenate(corners, -1) * jnp.tile(stride, 2)[None, None]
  return {"boxes": boxes_BK4, "scores": scores_BK, "classes": kind_BK}


def _stride(image_BHWC, heat_BHWC) -> jax.Array:
  """(x, y): the pixels between two cells."""
  (h, w), (H, W) = heat_BHWC.shape[1:3], image_BHWC.shape[1:3]
  return jnp.asarray([W / w, H / h], jnp.float32)


def _real(boxes_BN4) -> jax.Array:
  """1 on boxes with an area, 0 on others."""
  sides = boxes_BN4[..., 2:] - boxes_BN4[..., :2]
  return (sides > 0).all(-1).astype(jnp.float32)
