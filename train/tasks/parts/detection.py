"""The batches that all detectors read: pictures, and the boxes in them."""

import jax
import jax.numpy as jnp

from train.objectives import boxes as boxes_lib
from train.objectives import region_proposals

# What the axes of the fields mean; see common/leaf.py.
AXES = {
  "image": ("height", "width", "channel"),
  "boxes": ("box", "coordinate"),
  "boxes_mask": ("box",),
  "classes": ("box",),
  "instances": ("box", "height", "width"),
}


def real(batch) -> jax.Array:
  """Float32 [B, N]: 1 on boxes with an area, 0 on others and on padding."""
  return batch["boxes_mask"] * (boxes_lib.area(batch["boxes"]) > 0)


def truth(batch) -> region_proposals.Truth:
  """The objects of a batch, and the crowds, which are not learned."""
  real_BN = real(batch)
  crowd_BN = real_BN * batch.get("crowd", jnp.zeros_like(real_BN))
  return region_proposals.Truth(
    batch["boxes"], batch["classes"], real_BN - crowd_BN, crowd_BN
  )
