"""Progressive resizing: the first batches of a run have smaller images."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from input_pipeline.batching.pipeline import Data

# Fields of positions in pixels, (x, y) or (x0, y0, x1, y1).
POSITIONS = ("boxes", "keypoints")


def progressive_sizes(
  data: Data,
  *,
  sizes: Sequence[int],
  shares: Sequence[float],
  inkey: str = "image",
  total_steps: int,
) -> Data:
  """Makes images smaller in the first parts of a run (arXiv:2104.00298).

  At half the height and width an image costs a convolution a quarter. Each size
  is compiled once, when its first batch comes; after the last of `sizes` images
  have their own size, as in evaluation. The batch stays a function of the step.

  The model must take images of any size, and the labels must not have a place
  in the image: this is for classification and for learning without labels.
  multi_scale is for detection.

  Args:
    data: of the training.
    sizes: the height of the images in each of the first parts, in pixels; the
      width keeps its proportion.
    shares: the share of all steps that each of them takes, below 1 together.
    inkey: the field of images [B, H, W, C].
    total_steps: the length of the run.

  Raises:
    ValueError: sizes and shares do not match, the data have no such images or
      smaller ones, or another field has a place in the image.
  """
  sizes, shares = tuple(sizes), tuple(shares)
  if len(sizes) != len(shares) or min((*sizes, *shares), default=0) <= 0:
    raise ValueError(
      f"sizes={sizes}, shares={shares}: give a positive share for each size"
    )
  if sum(shares) >= 1:
    raise ValueError(f"shares={shares}: they must be below 1 together")
  shapes = smaller_shapes(data.spec, inkey, sizes)
  ends = np.round(np.cumsum(shares) * total_steps)

  def batches(first_step: int = 0) -> Iterator[dict[str, np.ndarray]]:
    for step, batch in enumerate(data.batches(first_step), first_step):
      part = int((step >= ends).sum())
      if part < len(shapes):
        image = resized(batch[inkey], *shapes[part])
        batch = {**batch, inkey: image}
      yield batch

  return data._replace(batches=batches)


def smaller_shapes(
  spec: Any, inkey: str, sizes: tuple[int, ...], moved: tuple[str, ...] = ()
) -> list[tuple[int, int]]:
  """The (height, width) of images that have each of the fewer rows `sizes`.

  `moved` are the fields with a place in the image that are made smaller, too.

  Raises:
    ValueError: the images cannot have such a size.
  """
  shape = spec[inkey].shape if inkey in spec else ()
  if len(shape) != 3:
    raise ValueError(f"the data have no images in the field {inkey!r}")
  if max(sizes) >= shape[0]:
    raise ValueError(
      f"sizes={sizes} must be below the {shape[0]} rows of {inkey!r}"
    )
  for key, leaf in spec.items():
    pairs = zip(leaf.shape, leaf.shape[1:], strict=False)
    if key != inkey and shape[:2] in pairs:
      raise ValueError(
        f"{key!r} has a value for each pixel and would not fit the smaller"
        f" {inkey!r}"
      )
    if key in (*POSITIONS, "place") and key not in moved:
      raise ValueError(
        f"{key!r} has a place in {inkey!r} and would not move with it;"
        " config.multi_scale moves boxes and keypoints"
      )
  H, W, _ = shape
  return [(size, max(1, round(W * size / H))) for size in sizes]


def resized(image_BHWC: np.ndarray, height: int, width: int) -> np.ndarray:
  """Antialiased linear interpolation to a smaller size, of the same dtype."""
  B, H, W, C = image_BHWC.shape
  rows = _triangles(H, height) @ image_BHWC.reshape(B, H, W * C)
  x_BHWC = _triangles(W, width) @ rows.reshape(B, height, W, C)
  if not np.issubdtype(image_BHWC.dtype, np.floating):
    x_BHWC = np.round(x_BHWC)
  return x_BHWC.astype(image_BHWC.dtype)


def _triangles(size: int, smaller: int) -> np.ndarray:
  """[smaller, size]: the share of each pixel in each of the fewer ones."""
  scale = size / smaller
  centre = (np.arange(smaller)[:, None] + 0.5) * scale
  distance = np.abs(np.arange(size) + 0.5 - centre) / scale
  share = np.maximum(0, 1 - distance)
  return (share / share.sum(1, keepdims=True)).astype(np.float32)
