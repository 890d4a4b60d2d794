"""Contrastive learning: two views of an image find each other (SimCLR)."""

import jax.numpy as jnp

from models.vision.projected import Projected
from train import types
from train.objectives import metric_learning as objective
from train.tasks.parts import networks

# What the axes of the fields mean; see common/leaf.py.
AXES = {"image": ("height", "width", "channel")}


def contrastive_learning(
  model: Projected, *, temperature: float = 0.5
) -> types.Task:
  """NT-Xent of the projections of two views (Chen et al., 2020).

  arXiv:2002.05709. The loss couples the examples of a batch, so that it
  accepts no microbatches.

  Batch: view_1 and view_2 [B, H, W, C] float, as the op `views` makes them;
  image [B, H, W, C], for the predictions; mask [B].

  Metrics: accuracy, the share of views whose most similar projection is that of
  the same image.

  Predictions: "features" [B, F] of the backbone; "embeddings" [B, D], the
  projections, of length 1.

  Args:
    model: a backbone and a head.
    temperature: divides the cosines.

  Raises:
    ValueError: the temperature is not above 0.
  """
  if not temperature > 0:
    raise ValueError(f"temperature={temperature} is not above 0")
  parts = networks.of(model)

  def loss(variables, batch, context):
    # Together, so that batch norm has one mean of both views.
    views = jnp.concatenate([batch["view_1"], batch["view_2"]])
    z, state = networks.through(
      parts, variables, views, rng=context.rng, train=context.train
    )
    mask_B = batch["mask"]
    B = len(mask_B)
    nats_B, correct_B = objective.nt_xent(z[:B], z[B:], mask_B, temperature)
    found = {"accuracy": types.mean_of(correct_B, mask_B)}
    return types.mean_of(nats_B, mask_B), types.Aux(state, found)

  return types.Task(
    networks.init_of(parts),
    {"loss": loss},
    networks.predictions(model),
    coupled=True,
  )
