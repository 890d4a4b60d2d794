"""Metric learning: embeddings in which examples of a class are near."""

import jax
import jax.numpy as jnp

from models.vision.projected import Projected
from train import types
from train.objectives import losses, metrics
from train.objectives import metric_learning as objective
from train.tasks.parts import networks

# What the axes of the fields mean; see common/leaf.py.
AXES = {"image": ("height", "width", "channel")}
LOSSES = ("arcface", "triplet")


def metric_learning(
  model: Projected,
  *,
  num_classes: int,
  loss: str = "arcface",
  margin: float | None = None,
  scale: float = 32.0,
  mining: str = "hard",
) -> types.Task:
  """A loss of embeddings by their labels.

  Batch: image [B, H, W, C] float; label [B] int32; mask [B]. A batch should
  have several examples of each class for "triplet".

  Metrics of "arcface": accuracy, of the nearest class vector. Of "triplet":
  violations, the share of anchors with a loss above 0.

  Predictions: "embeddings" [B, D] of length 1; "features" [B, F] of the
  backbone.

  Args:
    model: a backbone and a head.
    num_classes: C of the labels in training.
    loss: "arcface" (arXiv:1801.07698), in which a vector of each class is
      learned as well, or "triplet" (arXiv:1703.07737, arXiv:1503.03832).
    margin: of the angle in radians, or of the distance. Default: 0.3 or 0.2.
    scale: of the cosines of "arcface".
    mining: which triplets count, "hard" or "semi_hard".

  Raises:
    ValueError: a choice is unknown.
  """
  if loss not in LOSSES:
    raise ValueError(f"loss={loss!r} is neither arcface nor triplet")
  if mining not in objective.MINING:
    raise ValueError(f"mining={mining!r} is neither hard nor semi_hard")
  if margin is None:
    margin = 0.3 if loss == "arcface" else 0.2
  parts = networks.of(model)

  def class_vectors(rng):
    shape = (model.out, num_classes)
    return {"classes": 0.1 * jax.random.normal(rng, shape)}

  def arcface(variables, z_BD, label_B, mask_B, train):
    logits_BC = objective.arcface_logits(
      z_BD,
      variables.params["classes"],
      label_B,
      margin=margin if train else 0.0,
      scale=scale,
    )
    correct_B = metrics.accuracy(logits_BC, label_B)
    nats_B = losses.cross_entropy(logits_BC, label_B)
    return types.mean_of(nats_B, mask_B), {
      "accuracy": types.mean_of(correct_B, mask_B)
    }

  def triplet(variables, z_BD, label_B, mask_B, train):
    del variables, train
    value_B, weight_B = objective.triplet(
      objective.normalized(z_BD), label_B, mask_B, margin=margin, mining=mining
    )
    violated_B = (value_B > 0).astype(jnp.float32)
    return types.mean_of(value_B, weight_B), {
      "violations": types.mean_of(violated_B, weight_B > 0)
    }

  chosen = {"arcface": arcface, "triplet": triplet}[loss]

  def own_loss(variables, batch, context):
    z_BD, state = networks.through(
      parts, variables, batch["image"], rng=context.rng, train=context.train
    )
    label_B, mask_B = batch["label"], batch["mask"]
    mean, found = chosen(variables, z_BD, label_B, mask_B, context.train)
    return mean, types.Aux(state, found)

  return types.Task(
    networks.init_of(parts, *([class_vectors] if loss == "arcface" else [])),
    {"loss": own_loss},
    networks.predictions(model),
    coupled=loss == "triplet",
  )
