"""The masks of Mask R-CNN: what a region's mask is to be, and its loss.

P is a region with an object; cells are those of a mask within a box.
"""

import jax
import jax.numpy as jnp

from models.layers.roi_align import roi_align
from train.objectives import losses
from train.objectives.region_proposals import POSITIVES, Sampled


def with_object(chosen: Sampled) -> Sampled:
  """The regions among which are all that have an object, which come first."""
  count = max(1, int(chosen.kind.shape[1] * POSITIVES))
  return Sampled(*(each[:, :count] for each in chosen))


def targets(
  instances_BNHW: jax.Array, regions: Sampled, size: int
) -> jax.Array:
  """The mask of each region's object within its box, [B, P, size, size].

  The shares of cells that are covered, float32 from 0 to 1, by RoIAlign as in
  torchvision.

  Args:
    instances_BNHW: 1 on the pixels of each object, in pixels of the input.
    regions: with the number of the object of each.
    size: cells of each side.
  """
  B, P = regions.owner.shape
  H, W = instances_BNHW.shape[2:]
  own_BPHW = jnp.take_along_axis(
    instances_BNHW, regions.owner[..., None, None], axis=1
  )
  own_MHW1 = own_BPHW.reshape(B * P, H, W, 1).astype(jnp.float32)
  boxes_M14 = regions.boxes.reshape(B * P, 1, 4)
  found = roi_align(
    [own_MHW1], (1,), boxes_M14, jnp.zeros((B * P, 1), jnp.int32), size=size
  )
  return found.reshape(B, P, size, size)


def of_class(logits_BPhwC: jax.Array, class_BP: jax.Array) -> jax.Array:
  """The logits of a region's class, [B, P, h, w]."""
  place = class_BP[..., None, None, None]
  return jnp.take_along_axis(logits_BPhwC, place, axis=-1)[..., 0]


def probabilities(logits_BPhwC: jax.Array, class_BP: jax.Array) -> jax.Array:
  """The probabilities [B, P, h, w] that cells are of a region's class."""
  return jax.nn.sigmoid(of_class(logits_BPhwC, class_BP))


def mask_loss(
  logits_BPhwC: jax.Array, instances_BNHW: jax.Array, regions: Sampled
) -> jax.Array:
  """The mean binary cross-entropy [B] over the cells of regions with an object.

  It is 0 for an image without any. Only the mask of an object's class learns.
  """
  own_BPhw = of_class(logits_BPhwC, jnp.maximum(regions.kind - 1, 0))
  wanted_BPhw = targets(instances_BNHW, regions, own_BPhw.shape[-1])
  nats_BPhw = losses.binary_cross_entropy(own_BPhw, wanted_BPhw)
  real_BP = (regions.kind > 0).astype(jnp.float32)
  many_B = jnp.maximum(real_BP.sum(1), 1.0)
  return (nats_BPhw.mean((2, 3)) * real_BP).sum(1) / many_B
