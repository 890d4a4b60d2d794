"""Segmentation: one class for each pixel of an image."""

import jax.numpy as jnp

from models import Model
from train import types
from train.objectives import losses, metrics

# What the axes of the fields mean; see common/leaf.py.
AXES = {
  "image": ("height", "width", "channel"),
  "segmentation": ("height", "width"),
}


def segmentation(model: Model) -> types.Task:
  """Cross-entropy of the class of each pixel.

  Batch: image [B, H, W, C] float; segmentation [B, H, W] integers; mask [B].
  Pixels of a value outside of the model's classes, such as 255, are ignored, in
  the loss and in the accuracy.

  Args:
    model: image_BHWC -> logits_BHWC, one for each class and pixel.
  """

  def apply(variables, image_BHWC, **how):
    params, model_state = variables.params, variables.model_state
    return model.apply(params, model_state, image_BHWC, **how)

  def loss(variables, batch, context):
    logits_BHWC, model_state = apply(
      variables, batch["image"], rng=context.rng, train=context.train
    )
    label_BHW = batch["segmentation"].astype(jnp.int32)
    known_BHW = (label_BHW >= 0) & (label_BHW < logits_BHWC.shape[-1])
    weight_BHW = known_BHW * batch["mask"][:, None, None]
    nats_BHW = losses.cross_entropy(logits_BHWC, label_BHW)
    correct_BHW = metrics.accuracy(logits_BHWC, label_BHW)
    mean = types.mean_of(nats_BHW, weight_BHW)
    accuracy = types.mean_of(correct_BHW, weight_BHW)
    return mean, types.Aux(model_state, {"pixel_accuracy": accuracy})

  def logits(variables, batch, rng):
    del rng
    return apply(variables, batch["image"])[0]

  return types.Task(types.init_of(model), {"loss": loss}, {"logits": logits})
