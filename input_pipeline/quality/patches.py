"""Features of images that no label is needed for: random patches as filters.

Coates and Ng, "The Importance of Encoding Versus Training with Sparse Coding
and Vector Quantization", 2011: whitened patches of the images themselves as
filters, a soft threshold, and sums over parts of the image. A linear
classifier on them comes near a small convolutional network, and is trained in
seconds: what cross-validation repeats is cheap.
"""

import os

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from input_pipeline import pipeline

_SIDE = 6  # of a patch, in pixels
_THRESHOLD = 0.25
_CONTRAST = 10.0  # added to a patch's variance, of pixels 0 to 255
_WHITENING = 0.1  # added to the variances of patches of variance 1
_FITTED_ON = 100_000  # patches
_AT_ONCE = 32  # images


def write_patches(
  *,
  source: str,
  split: str,
  indices: np.ndarray,
  ops: str,
  filters: int,
  folder: str,
  seed: int = 0,
) -> np.ndarray:
  """x.npy: standardized features of images, float16 [N, 4 * filters].

  Half of the filters are the mirror images of the other half, and what a
  filter finds on the left is added to what its mirror image finds on the
  right: an image and its mirror image have the same features.

  Args:
    source: URI of images.
    split: of it.
    indices: int64 [N], the examples of the split.
    ops: that make each image uint8 [h, w, c], of one size.
    filters: even.
    folder: where x.npy is written.
    seed: of the choice of patches.

  Returns:
    bool [N]: which images could be decoded; the others' features are zeros.
  """
  known = np.zeros(len(indices), bool)
  rng = np.random.default_rng(seed)
  images = _images(source, split, indices, ops)
  some = images(np.sort(rng.permutation(len(indices))[:2000]))
  sample = np.concatenate([image for _, image in some])
  weights, bias = _filters(sample, filters, rng)
  path = os.path.join(folder, "x.npy")
  os.makedirs(folder, exist_ok=True)
  shape = (len(indices), 4 * filters)
  x = np.lib.format.open_memmap(path, "w+", np.float16, shape)
  total = square = np.zeros(shape[1])
  for rows, found in images(np.arange(len(indices))):
    for start in range(0, len(rows), _AT_ONCE):
      at = slice(start, start + _AT_ONCE)
      features = _encoded(found[at], weights, bias)
      x[rows[at]] = features
      known[rows[at]] = True
      total = total + features.sum(0, dtype=np.float64)
      square = square + np.square(features, dtype=np.float64).sum(0)
  count = max(1, known.sum())
  mean = total / count
  spread = np.sqrt(np.maximum(square / count - mean**2, 1e-12))
  for start in range(0, len(x), 1024):
    at = slice(start, start + 1024)
    scaled = (x[at].astype(np.float32) - mean) / spread
    x[at] = scaled * known[at, None]
  x.flush()
  return known


def _images(source: str, split: str, indices: np.ndarray, ops: str):
  """(places among the indices, ascending) -> pairs (places, images)."""
  data = pipeline.evaluation(
    source=source,
    split=split,
    ops=f"{ops}|keep('image')",
    batch_size=256,
    on_bad_record="skip",
  )
  place = np.full(data.num_examples, -1)
  place[indices] = np.arange(len(indices))

  def chosen(places: np.ndarray):
    wanted = np.zeros(len(indices) + 1, bool)
    wanted[places] = True  # The last one stays False: index -1.
    for batch in data.batches(0):
      at = np.where(batch["index"] >= 0, place[batch["index"]], -1)
      kept = wanted[at]
      if kept.any():
        yield at[kept], batch["image"][kept]

  return chosen


def _patches(images: np.ndarray) -> np.ndarray:
  """Every patch, float32 [n, rows, columns, values], of one brightness."""
  side = min(_SIDE, *images.shape[1:3])
  windows = sliding_window_view(images, (side, side), axis=(1, 2))
  shape = windows.shape[:3]
  patches = windows.reshape(*shape, -1).astype(np.float32)
  patches -= patches.mean(-1, keepdims=True)
  spread = np.sqrt(
    np.einsum("...i,...i->...", patches, patches) / patches.shape[-1]
    + _CONTRAST
  )
  patches /= spread[..., None]
  return patches


def _filters(images: np.ndarray, filters: int, rng):
  """(weights [values, filters], bias [filters]) that whiten and filter.

  The second half are the mirror images of the first.
  """
  channels = images.shape[-1]
  patches = _patches(images)
  side = int(np.sqrt(patches.shape[-1] // channels))
  patches = patches.reshape(-1, patches.shape[-1])
  chosen = rng.permutation(len(patches))[:_FITTED_ON]
  patches = patches[chosen].astype(np.float64)

  def mirrored(values: np.ndarray) -> np.ndarray:
    image = values.reshape(-1, channels, side, side)
    return image[..., ::-1].reshape(values.shape)

  both = np.concatenate([patches, mirrored(patches)])
  mean = both.mean(0)
  variance, axes = np.linalg.eigh(np.cov(both - mean, rowvar=False))
  whiten = (axes / np.sqrt(np.maximum(variance, 0) + _WHITENING)) @ axes.T
  picked = patches[rng.integers(len(patches), size=filters // 2)]
  picked = np.concatenate([picked, mirrored(picked)])
  directions = (picked - mean) @ whiten
  norms = np.linalg.norm(directions, axis=1, keepdims=True)
  weights = whiten @ (directions / np.maximum(norms, 1e-12)).T
  return weights.astype(np.float32), (mean @ weights).astype(np.float32)


def _encoded(images: np.ndarray, weights, bias) -> np.ndarray:
  """float32 [n, 4 * filters]: above and below, each found and its negative."""
  z = _patches(images) @ weights - bias
  _, rows, columns, filters = z.shape
  mirror = np.roll(np.arange(filters), filters // 2)
  top, left = (rows + 1) // 2, (columns + 1) // 2
  parts = []
  for sign in (1, -1):
    found = np.maximum(sign * z - _THRESHOLD, 0)
    for down in (slice(0, top), slice(rows - top, rows)):
      here = found[:, down, :left].mean((1, 2))
      there = found[:, down, columns - left :].mean((1, 2))
      parts.append(here + there[:, mirror])
  return np.concatenate(parts, 1)
