"""The batches that all detectors read: pictures, and the boxes in them."""

import jax

from train.objectives import boxes as boxes_lib

# What the axes of the fields mean; see common/leaf.py.
AXES = {
  "image": ("height", "width", "channel"),
  "boxes": ("box", "coordinate"),
  "boxes_mask": ("box",),
  "classes": ("box",),
}


def real(batch) -> jax.Array:
  """Float32 [B, N]: 1 on boxes with an area, 0 on others and on padding."""
  return batch["boxes_mask"] * (boxes_lib.area(batch["boxes"]) > 0)
