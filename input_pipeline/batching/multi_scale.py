"""Multi-scale training: each batch of a run has images of a size of its own."""

from collections.abc import Iterator, Sequence

import numpy as np

from input_pipeline.batching.pipeline import Data
from input_pipeline.batching.progressive_sizes import (
  POSITIONS,
  resized,
  smaller_shapes,
)


def multi_scale(
  data: Data,
  *,
  sizes: Sequence[int],
  inkey: str = "image",
  seed: int,
) -> Data:
  """Draws the size of the images of each batch (arXiv:1612.08242, section 3).

  It is drawn uniformly from `sizes` and the images' own size, which evaluation
  keeps. Boxes and keypoints are scaled with the images. Each size is compiled
  once, when its first batch comes. The size is a function of (seed, step).

  Args:
    data: of the training.
    sizes: the heights, in pixels, below that of the images; the width keeps its
      proportion.
    inkey: the field of images [B, H, W, C].
    seed: of the run.

  Raises:
    ValueError: the data have no such images or smaller ones, or another field
      has a value for each of their pixels.
  """
  sizes = tuple(sizes)
  if min(sizes, default=0) <= 0:
    raise ValueError(f"sizes={sizes}: give positive heights")
  shapes = smaller_shapes(data.spec, inkey, sizes, moved=POSITIONS)
  H, W, _ = data.spec[inkey].shape

  def batches(first_step: int = 0) -> Iterator[dict[str, np.ndarray]]:
    for step, batch in enumerate(data.batches(first_step), first_step):
      drawn = np.random.default_rng([seed, step]).integers(len(shapes) + 1)
      if drawn < len(shapes):
        height, width = shapes[drawn]
        batch = {**batch, inkey: resized(batch[inkey], height, width)}
        for name in filter(batch.__contains__, POSITIONS):
          place = batch[name]
          scale = np.array([width / W, height / H], place.dtype)
          batch[name] = place * np.tile(scale, place.shape[-1] // 2)
      yield batch

  return data._replace(batches=batches)
