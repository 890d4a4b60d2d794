"""Progressive resizing: training begins with small images."""

from collections.abc import Sequence

import jax
import numpy as np

from train import types


def progressive_size(
  task: types.Task,
  *,
  sizes: Sequence[int],
  shares: Sequence[float],
  inkey: str = "image",
  total_steps: int,
) -> types.Task:
  """Trains on smaller images in the first parts of a run (arXiv:2104.00298).

  A convolution costs a quarter at half the size, and what the network learns
  there it keeps. Images are made smaller by antialiased linear interpolation
  within the step, so that the data and the position in them stay the same; a
  size is a branch of one program. After the last of `sizes` the images have
  their own size, as in evaluation.

  The model must take images of any size, and the labels must not have a place
  in the image: it is made for classification and for learning without labels.

  Args:
    task: any, with one or more losses that read the field `inkey`.
    sizes: the height of the images in each of the first parts, in pixels; the
      width keeps its proportion.
    shares: the share of all steps that each of them takes, below 1 together.
    inkey: the field of images [B, H, W, C].
    total_steps: the length of the run.

  Raises:
    ValueError: sizes and shares do not match. The losses raise it if a size is
      not below that of the images, or if another field has their height and
      width.
  """
  sizes, shares = tuple(sizes), tuple(shares)
  if len(sizes) != len(shares) or min((*sizes, *shares), default=0) <= 0:
    raise ValueError(
      f"sizes={sizes}, shares={shares}: give a positive share for each size"
    )
  if sum(shares) >= 1:
    raise ValueError(f"shares={shares}: they must be below 1 together")
  ends = np.round(np.cumsum(shares) * total_steps)

  def resized(loss):
    def call(variables, batch, context):
      if not context.train:
        return loss(variables, batch, context)
      _check(batch, inkey, sizes)
      image_BHWC = batch[inkey]

      def at(size):
        if size is None:
          return lambda: loss(variables, batch, context)
        B, H, W, C = image_BHWC.shape
        shape = (B, size, max(1, round(W * size / H)), C)

        def branch():
          small_BHWC = jax.image.resize(image_BHWC, shape, "linear")
          return loss(variables, {**batch, inkey: small_BHWC}, context)

        return branch

      part = (context.step >= ends).sum()
      return jax.lax.switch(part, [at(size) for size in (*sizes, None)])

    return call

  losses = {name: resized(loss) for name, loss in task.losses.items()}
  return task._replace(losses=losses)


def _check(batch, inkey, sizes) -> None:
  shape = batch[inkey].shape
  if max(sizes) >= shape[1]:
    raise ValueError(
      f"progressive_size: sizes={sizes} must be below the {shape[1]} rows of"
      f" {inkey!r}"
    )
  for key, leaf in batch.items():
    if key != inkey and leaf.shape[1:3] == shape[1:3]:
      raise ValueError(
        f"progressive_size: {key!r} has a value for each pixel and would not"
        f" fit the smaller {inkey!r}"
      )
