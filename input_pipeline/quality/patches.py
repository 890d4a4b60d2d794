"""Unsupervised features of images: random patches as filters.

Coates and Ng, "The Importance of Encoding Versus Training with Sparse Coding
and Vector Quantization", 2011: whitened patches of the images are filters,
followed by a soft threshold and sums over parts of the image. A linear
classifier on the features is nearly as accurate as a small convolutional
network and trains in seconds, which cross-validation repeats.
"""

import os

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from input_pipeline.batching import pipeline

_SIDE = 6  # of a patch, in pixels
_THRESHOLD = 0.25
_CONTRAST = 10.0  # added to a patch's variance, of pixels 0 to 255
_WHITENING = 0.1  # added to the variances of patches of variance 1
_FITTED_ON = 50_000  # patches
_AT_ONCE = 4  # images, whose intermediate results fit into the caches


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
  """Writes x.npy: standardized features of images, float16 [N, 4 * filters].

  Half of the filters are the mirror images of the other half. The responses of
  a filter on the left are added to those of its mirror image on the right, so
  that an image and its mirror image have the same features.

  Args:
    source: the URI of a source of images.
    split: of the source.
    indices: int64 [N], the examples of the split.
    ops: the ops that make each image uint8 [h, w, c] of one size.
    filters: the number of filters, which is even.
    folder: the folder of x.npy.
    seed: of the choice of patches.

  Returns:
    bool [N]: which images were decoded; the features of others are zeros.
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


def _windows(images: np.ndarray) -> np.ndarray:
  """A view of every patch, [n, rows, columns, channels, side, side]."""
  side = min(_SIDE, *images.shape[1:3])
  return sliding_window_view(images, (side, side), axis=(1, 2))


def _levelled(windows: np.ndarray) -> np.ndarray:
  """Patches as float32 [..., values], of mean 0 and about the same contrast."""
  patches = windows.reshape(*windows.shape[:-3], -1).astype(np.float32)
  patches -= patches.mean(-1, keepdims=True)
  variance = np.einsum("...i,...i->...", patches, patches) / patches.shape[-1]
  patches /= np.sqrt(variance + _CONTRAST)[..., None]
  return patches


def _filters(images: np.ndarray, filters: int, rng):
  """(weights [values, filters], bias [filters]) of whitening and filters.

  The second half of the filters are the mirror images of the first half.
  """
  windows = _windows(images)
  places = [rng.integers(n, size=_FITTED_ON) for n in windows.shape[:3]]
  chosen = windows[tuple(places)]
  patches = _levelled(chosen).astype(np.float64)
  mirrored = _levelled(chosen[..., ::-1]).astype(np.float64)
  both = np.concatenate([patches, mirrored])
  mean = both.mean(0)
  variance, axes = np.linalg.eigh(np.cov(both - mean, rowvar=False))
  whiten = (axes / np.sqrt(np.maximum(variance, 0) + _WHITENING)) @ axes.T
  half = slice(0, filters // 2)  # The patches are in random order.
  picked = np.concatenate([patches[half], mirrored[half]])
  directions = (picked - mean) @ whiten
  norms = np.linalg.norm(directions, axis=1, keepdims=True)
  weights = whiten @ (directions / np.maximum(norms, 1e-12)).T
  return weights.astype(np.float32), (mean @ weights).astype(np.float32)


def _encoded(images: np.ndarray, weights, bias) -> np.ndarray:
  """Positive and negative responses by halves, float32 [n, 4 * filters]."""
  patches = _levelled(_windows(images))
  n, rows, columns, values = patches.shape
  filters = weights.shape[1]
  halves_4P = np.stack(
    [
      np.outer(down, right).reshape(-1)
      for down in _halves(rows)
      for right in _halves(columns)
    ]
  )
  z = patches.reshape(-1, values) @ weights - bias
  z = z.reshape(n, rows * columns, filters)
  mirror = np.roll(np.arange(filters), filters // 2)
  parts = []
  for sign in (1, -1):
    # Means over quarters as matrix products, which are fastest.
    found = np.multiply(z, sign)
    found -= _THRESHOLD
    np.maximum(found, 0, out=found)
    quarters = np.stack([halves_4P @ each for each in found])
    quarters = quarters.reshape(n, 2, 2, filters)
    parts.append(quarters[:, :, 0] + quarters[:, :, 1][..., mirror])
  return np.concatenate(parts, 1).reshape(n, -1)


def _halves(size: int) -> tuple[np.ndarray, np.ndarray]:
  """Weights [size] of the first and last half; a middle belongs to both."""
  first = (np.arange(size) < (size + 1) // 2).astype(np.float32)
  first /= first.sum()
  return first, first[::-1]
