"""Detection in two stages: regions are proposed, then classified."""

import jax
import jax.numpy as jnp

from models import Model
from train import types
from train.objectives import boxes as boxes_lib
from train.objectives import region_masks, region_proposals
from train.tasks.parts import detection

AXES = detection.AXES
_LOSSES = ("objectness", "anchors", "class", "box", "mask")


def two_stage_detection(
  model: Model,
  *,
  detections: int = 100,
  overlap: float = 0.5,
  proposals: int = 100,
  candidates: int = 200,
  anchors: int = 128,
  regions: int = 64,
  masks: bool = False,
) -> types.Task:
  """Faster R-CNN (arXiv:1506.01497), or Mask R-CNN (arXiv:1703.06870).

  The sum of four or five losses: of objectness and of the boxes of anchors, of
  classes, boxes and masks of proposed regions. Thresholds and shares of
  positives are torchvision's. The loss of an image is divided by its numbers of
  sampled anchors and regions.

  Batch: image [B, H, W, C] float; boxes [B, N, 4], each (x0, y0, x1, y1) in
  pixels; boxes_mask [B, N]; classes [B, N] int32; mask [B]; optionally crowd
  [B, N], 1 on boxes that are not learned and whose regions are no negatives.

  Args:
    model: as models/vision/faster_rcnn.py, or mask_rcnn.py, describes it.
    detections: K, the number of boxes of the prediction "detections".
    overlap: the IoU above which a detection suppresses others of its class.
    proposals: regions of an image that reach the second stage.
    candidates: anchors of each level before suppression.
    anchors: sampled in each image for the first stage's losses.
    regions: sampled in each image for the second stage's losses.
    masks: whether masks are learned, too, from instances [B, N, H, W].
  """

  def first(variables, batch, **how):
    found, model_state = model.apply(
      variables.params, variables.model_state, batch["image"], **how
    )
    boxes_BR4 = region_proposals.proposals(
      jax.lax.stop_gradient(found),
      batch["image"].shape[1:3],
      threshold=0.7,
      before=candidates,
      after=proposals,
    )
    return found, boxes_BR4, model_state

  def second(variables, method, levels, boxes_BR4, state, **how):
    params = variables.params
    return model.apply(params, state, levels, boxes_BR4, method=method, **how)

  def loss(variables, batch, context):
    rngs = jax.random.split(context.rng, 3)
    how = {"rng": rngs[0], "train": context.train}
    found, boxes_BR4, model_state = first(variables, batch, **how)
    truth = detection.truth(batch)
    losses = region_proposals.first_loss(found, truth, rngs[1], count=anchors)
    chosen = region_proposals.regions_to_learn(
      boxes_BR4, truth, rngs[2], count=regions
    )
    levels = found["levels"]
    regions_found, model_state = second(
      variables, "regions", levels, chosen.boxes, model_state, **how
    )
    losses += region_proposals.second_loss(regions_found, chosen, truth)
    if masks:
      few = region_masks.with_object(chosen)
      logits, model_state = second(
        variables, "masks", levels, few.boxes, model_state, **how
      )
      losses += (region_masks.mask_loss(logits, batch["instances"], few),)
    mask_B = batch["mask"]
    measured = {
      f"{name}_loss": types.mean_of(values_B, mask_B)
      for name, values_B in zip(_LOSSES, losses, strict=False)
    }
    recall_BN = boxes_lib.pairwise(truth.boxes, boxes_BR4).max(-1) >= 0.5
    mask_BN = truth.real * mask_B[:, None]
    measured["proposals_recall"] = types.mean_of(recall_BN, mask_BN)
    total = types.mean_of(jnp.stack(losses).sum(0), mask_B)
    return total, types.Aux(model_state, measured)

  def detected(variables, batch, rng):
    del rng
    found, boxes_BR4, state = first(variables, batch)
    levels = found["levels"]
    regions_found, _ = second(variables, "regions", levels, boxes_BR4, state)
    boxes_BRC4 = boxes_lib.decoded(
      regions_found["codes"], boxes_BR4[:, :, None], region_proposals.WEIGHTS
    )
    real_BR = boxes_lib.area(boxes_BR4) > 0
    scores_BRC = jax.nn.softmax(regions_found["logits"])[..., 1:]
    result = boxes_lib.detections(
      boxes_lib.clipped(boxes_BRC4, *batch["image"].shape[1:3]),
      scores_BRC * real_BR[..., None],
      count=detections,
      threshold=overlap,
    )
    if masks:
      logits, _ = second(variables, "masks", levels, result["boxes"], state)
      result["masks"] = region_masks.probabilities(logits, result["classes"])
    return result

  return types.Task(
    types.init_of(model), {"loss": loss}, {"detections": detected}
  )
