"""Detection as the prediction of a set, without suppression."""

import jax
import jax.numpy as jnp

from models import Model
from train import types
from train.objectives import boxes as boxes_lib
from train.objectives import losses, set_matching
from train.tasks.parts import detection

AXES = detection.AXES


def set_detection(
  model: Model,
  *,
  detections: int = 100,
  distance_weight: float = 5.0,
  overlap_weight: float = 2.0,
  none_weight: float = 0.1,
) -> types.Task:
  """DETR's loss (Carion et al., 2020, arXiv:2005.12872), of all layers.

  Each object is learned by one query, which the Hungarian algorithm finds
  inside the step; all others learn that there is none. The loss of an image is
  the weighted mean of its queries' cross entropies plus, per object, the sum of
  coordinates' distances and 1 - GIoU.

  Batch: image [B, H, W, C] float; boxes [B, N, 4], each (x0, y0, x1, y1) in
  pixels; boxes_mask [B, N]; classes [B, N] int32; mask [B]; optionally crowd
  [B, N], 1 on boxes that are not learned.

  Args:
    model: as models/vision/detr.py describes it.
    detections: K, the number of boxes of the prediction "detections".
    distance_weight: of the sum of the four coordinates' distances.
    overlap_weight: of 1 - GIoU.
    none_weight: of a query without an object, in the cross entropy.
  """
  weights = distance_weight, overlap_weight

  def apply(variables, batch, **how):
    return model.apply(
      variables.params, variables.model_state, batch["image"], **how
    )

  def loss(variables, batch, context):
    found, model_state = apply(
      variables, batch, rng=context.rng, train=context.train
    )
    real_BN = detection.real(batch)
    real_BN *= 1 - batch.get("crowd", jnp.zeros_like(real_BN))
    truth_BN4 = boxes_lib.to_centres(batch["boxes"] / _size(batch))
    classes_BN, mask_B = batch["classes"], batch["mask"]
    total_B, measured = jnp.zeros(mask_B.shape), {}
    for layer in range(found["logits"].shape[1]):
      logits_BQC, boxes_BQ4 = (
        found[name][:, layer] for name in ("logits", "boxes")
      )
      cost_BNQ = set_matching.cost(
        (logits_BQC, boxes_BQ4), (classes_BN, truth_BN4), weights
      )
      query_BN = set_matching.matching(cost_BNQ, real_BN)
      own_BN4 = jnp.take_along_axis(boxes_BQ4, query_BN[..., None], axis=1)
      apart_BN = jnp.abs(own_BN4 - truth_BN4).sum(-1)
      corners = [boxes_lib.from_centres(x) for x in (own_BN4, truth_BN4)]
      giou_BN = boxes_lib.overlap(corners[0], corners[1], "giou")
      box_BN = distance_weight * apart_BN + overlap_weight * (1 - giou_BN)
      box_B = (box_BN * real_BN).sum(1) / jnp.maximum(real_BN.sum(1), 1)
      none = logits_BQC.shape[-1] - 1
      at_BNQ = jax.nn.one_hot(query_BN, logits_BQC.shape[1])
      at_BNQ *= real_BN[..., None]
      kind_BQ = (at_BNQ * classes_BN[..., None]).sum(1).astype(jnp.int32)
      kind_BQ = jnp.where(at_BNQ.sum(1) > 0, kind_BQ, none)
      weight_BQ = jnp.where(kind_BQ == none, none_weight, 1.0)
      nats_BQ = losses.cross_entropy(logits_BQC, kind_BQ)
      class_B = (nats_BQ * weight_BQ).sum(1) / weight_BQ.sum(1)
      total_B += class_B + box_B
      measured = {  # of the last layer, which predicts
        "class_loss": types.mean_of(class_B, mask_B),
        "box_loss": types.mean_of(box_B, mask_B),
        "giou": types.mean_of(giou_BN, real_BN * mask_B[:, None]),
      }
    return types.mean_of(total_B, mask_B), types.Aux(model_state, measured)

  def detected(variables, batch, rng):
    del rng
    found, _ = apply(variables, batch)
    boxes_BQ4 = boxes_lib.from_centres(found["boxes"][:, -1]) * _size(batch)
    scores_BQC = jax.nn.softmax(found["logits"][:, -1])[..., :-1]
    return boxes_lib.strongest(
      boxes_lib.clipped(boxes_BQ4, *batch["image"].shape[1:3]),
      scores_BQC.max(-1),
      scores_BQC.argmax(-1),
      detections,
    )

  return types.Task(
    types.init_of(model), {"loss": loss}, {"detections": detected}
  )


def _size(batch) -> jax.Array:
  """(width, height) twice, [1, 1, 4]: of the padded image that DETR sees."""
  H, W = (-(-side // 32) * 32 for side in batch["image"].shape[1:3])
  return jnp.asarray([W, H, W, H], jnp.float32)[None, None]
