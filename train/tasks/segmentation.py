"""Segmentation: one class for each pixel of an image."""

from collections.abc import Sequence

import jax.numpy as jnp

from models import Model
from train import types
from train.objectives import losses, metrics
from train.objectives import segmentation as objective

# What the axes of the fields mean; see common/leaf.py.
AXES = {
  "image": ("height", "width", "channel"),
  "segmentation": ("height", "width"),
}


def segmentation(
  model: Model,
  *,
  class_weights: Sequence[float] = (),
  ignored: Sequence[int] = (),
  dice: float = 0.0,
  auxiliary: float = 0.0,
) -> types.Task:
  """Cross-entropy of the class of each pixel.

  Batch: image [B, H, W, C] float; segmentation [B, H, W] integers; mask [B].
  Pixels of a value outside of the model's classes, such as 255, are ignored, in
  the loss and in the accuracy.

  Args:
    model: image_BHWC -> logits_BHWC, one for each class and pixel.
    class_weights: of the pixels of each class; the loss is divided by the sum
      of the weights. () weighs all alike.
    ignored: further classes that are ignored, by number.
    dice: the weight of the soft Dice loss of each image.
    auxiliary: in training, the weight of the cross-entropy of the second of
      the logits that the model's method "both" returns.
  """

  def apply(variables, image_BHWC, **how):
    params, model_state = variables.params, variables.model_state
    return model.apply(params, model_state, image_BHWC, **how)

  def loss(variables, batch, context):
    second = auxiliary and context.train
    how = {"method": "both"} if second else {}
    found, model_state = apply(
      variables, batch["image"], rng=context.rng, train=context.train, **how
    )
    logits_BHWC = found[0] if second else found
    label_BHW = batch["segmentation"].astype(jnp.int32)
    classes = logits_BHWC.shape[-1]
    known_BHW = objective.pixel_weights(label_BHW, classes, (), ignored)
    known_BHW *= batch["mask"][:, None, None]
    nats_BHW = losses.cross_entropy(logits_BHWC, label_BHW)
    correct_BHW = metrics.accuracy(logits_BHWC, label_BHW)
    measured = {"pixel_accuracy": types.mean_of(correct_BHW, known_BHW)}
    weight_BHW = known_BHW
    if class_weights:
      weight_BHW = known_BHW * objective.pixel_weights(
        label_BHW, classes, class_weights
      )
    if dice:
      lost_B = objective.dice_loss(logits_BHWC, label_BHW, known_BHW)
      measured["dice_loss"] = types.mean_of(lost_B, batch["mask"])
      # An image counts by the weight of its pixels, as in the cross-entropy.
      nats_BHW += dice * lost_B[:, None, None]
    if second:
      nats_BHW += auxiliary * losses.cross_entropy(found[1], label_BHW)
    mean = types.mean_of(nats_BHW, weight_BHW)
    return mean, types.Aux(model_state, measured)

  def logits(variables, batch, rng):
    del rng
    return apply(variables, batch["image"])[0]

  return types.Task(types.init_of(model), {"loss": loss}, {"logits": logits})
