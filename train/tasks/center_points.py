"""Detection by the centres of objects, without anchors."""

import jax
import jax.numpy as jnp

from models import Model
from train import types
from train.objectives import center_points as center_points_lib
from train.tasks.parts import detection

AXES = detection.AXES


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
    real_BN = detection.real(batch)
    heat_BHWC, cell_BN2 = center_points_lib.targets(
      boxes_BN4, batch["classes"], real_BN, found["heat"].shape
    )
    focal_B = center_points_lib.focal(found["heat"], heat_BHWC).sum((1, 2, 3))
    iou_BN = center_points_lib.centre_iou(found["sides"], boxes_BN4, cell_BN2)
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
    return center_points_lib.decoded(
      found, _stride(batch["image"], found["heat"]), detections
    )

  return types.Task(
    types.init_of(model), {"loss": loss}, {"detections": detected}
  )


def _stride(image_BHWC, heat_BHWC) -> jax.Array:
  """(x, y): the pixels between two cells."""
  (h, w), (H, W) = heat_BHWC.shape[1:3], image_BHWC.shape[1:3]
  return jnp.asarray([W / w, H / h], jnp.float32)
