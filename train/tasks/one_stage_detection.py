"""Detection in one stage: every cell predicts a box and its classes."""

import jax
import jax.numpy as jnp

from models import Model
from train import types
from train.objectives import box_assignment
from train.objectives import boxes as boxes_lib
from train.tasks.parts import detection

AXES = detection.AXES


def one_stage_detection(
  model: Model,
  *,
  detections: int = 100,
  overlap: float = 0.6,
  top: int = 10,
  alpha: float = 0.5,
  beta: float = 6.0,
  class_weight: float = 0.5,
  box_weight: float = 7.5,
  bins_weight: float = 1.5,
) -> types.Task:
  """Learns boxes by 1 - CIoU and classes by binary cross entropy.

  Which prediction learns which object is decided by the predictions themselves
  (train/objectives/box_assignment.py, task_aligned); the losses and their
  weights are those of YOLOv8. The loss of a batch is divided by the sum of the
  scores to be learned, which counts as at least 1 in each image, so that an
  image without objects is a negative.

  Batch: image [B, H, W, C] float; boxes [B, N, 4], each (x0, y0, x1, y1) in
  pixels; boxes_mask [B, N]; classes [B, N] int32; mask [B]; optionally crowd
  [B, N], 1 on boxes that are not learned, within which nothing is a negative.

  Args:
    model: image_BHWC -> {"logits", "boxes", "points", "strides"} and possibly
      "bins", as models/vision/yolo.py describes them.
    detections: K, the number of boxes of the prediction "detections".
    overlap: the IoU above which non-maximum suppression leaves a box out.
    top: the number of predictions that learn an object.
    alpha: exponent of the score in the alignment.
    beta: exponent of the IoU in the alignment.
    class_weight: the weight of the classes' loss.
    box_weight: the weight of the boxes' loss.
    bins_weight: the weight of the loss of the distances' distributions.
  """

  def apply(variables, batch, **how):
    params, model_state = variables.params, variables.model_state
    return model.apply(params, model_state, batch["image"], **how)

  def loss(variables, batch, context):
    found, model_state = apply(
      variables, batch, rng=context.rng, train=context.train
    )
    real_BN = detection.real(batch)
    crowd_BN = real_BN * batch.get("crowd", jnp.zeros_like(real_BN))
    truth_BN4, classes_BN = batch["boxes"], batch["classes"]
    owner_BA, share_BA = box_assignment.task_aligned(
      jax.lax.stop_gradient(found),
      truth_BN4,
      classes_BN,
      real_BN - crowd_BN,
      top=top,
      alpha=alpha,
      beta=beta,
    )
    own_BA4 = jnp.take_along_axis(truth_BN4, owner_BA[..., None], axis=1)
    kind_BA = jnp.take_along_axis(classes_BN, owner_BA, axis=1)
    idle_BA = box_assignment.covered(found["points"], truth_BN4, crowd_BN)
    entropy_BA = box_assignment.class_loss(
      found["logits"], kind_BA, share_BA, idle_BA
    )
    ciou_BA = boxes_lib.overlap(found["boxes"], own_BA4, "ciou")
    parts = {
      "class_loss": (class_weight, entropy_BA),
      "box_loss": (box_weight, (1 - ciou_BA) * share_BA),
    }
    if "bins" in found:
      nats_BA = box_assignment.bins_loss(found, own_BA4)
      parts["bins_loss"] = (bins_weight, nats_BA * share_BA)
    weight_B = jnp.maximum(share_BA.sum(1), 1.0) * batch["mask"]
    weight = weight_B.sum()

    def mean(values_BA):
      values_B = jnp.where(batch["mask"] > 0, values_BA.sum(1), 0.0)
      return types.Mean(values_B.sum(), weight)

    measured = {name: mean(values) for name, (_, values) in parts.items()}
    total = mean(sum(factor * values for factor, values in parts.values()))
    iou_BA = boxes_lib.overlap(found["boxes"], own_BA4)
    measured["iou"] = types.mean_of(iou_BA, share_BA * batch["mask"][:, None])
    return total, types.Aux(model_state, measured)

  def detected(variables, batch, rng):
    del rng
    found, _ = apply(variables, batch)
    return boxes_lib.detections(
      boxes_lib.clipped(found["boxes"], *batch["image"].shape[1:3]),
      jax.nn.sigmoid(found["logits"]),
      count=detections,
      threshold=overlap,
    )

  return types.Task(
    types.init_of(model), {"loss": loss}, {"detections": detected}
  )
