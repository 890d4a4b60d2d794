"""Near duplicates between two splits: texts, images and audio."""

import collections
from collections.abc import Iterator

import numpy as np

from input_pipeline.quality import dataset
from input_pipeline.quality.dataset import Dataset
from input_pipeline.similarity import minhash, shingles

# MinHash: 16 bands of 4 rows find 99.98 % of the pairs of similarity 0.8.
_BANDS, _ROWS = 16, 4
_GRAM = 5
_LONGEST = 100_000
# Correlations of centred thumbnails or spectra; nearly flat ones are skipped.
_CORRELATION = 0.998
_STANDS_OUT, _NEARER, _RANK = 0.95, 0.125, 5
_LEAST_SPREAD = 4.0
_BLOCK = 2048
# The number of pairs that are compared, which takes half a minute.
MOST_PAIRS = 2_000_000_000
_NONE = -1
# Candidates of a text, and texts whose candidates are in memory at once.
_FEW, _TEXTS = 8, 16


def hashes(text: str) -> np.ndarray:
  """Returns sorted hashes, uint64, of the distinct 5-grams of a text.

  The n-grams consist of words, or of characters if the text is written without
  spaces between words. Case, white space and punctuation are ignored. A shorter
  text is one n-gram, and the first 100,000 characters of a longer one count.
  """
  return shingles.shingles(text[:_LONGEST], {}, _GRAM, "auto")


def near_texts(
  data: Dataset, other: Dataset, field: str, similarity: float
) -> list[tuple[int, int, float]]:
  """Returns (row, row of the others, Jaccard similarity) of the best matches.

  Candidates come from MinHash. Their exact similarities are computed, so that
  every reported pair has at least the given similarity.
  """
  candidates = _candidates(_bands(data, field), _bands(other, field))
  found = []
  for start in range(0, len(candidates), _TEXTS):
    chunk = candidates[start : start + _TEXTS]
    mine = _hashes_of(data, field, [row for row, _ in chunk])
    theirs = _hashes_of(
      other, field, sorted({match for _, matches in chunk for match in matches})
    )
    for row, matches in chunk:
      alike = [(shingles.jaccard(mine[row], theirs[m]), -m) for m in matches]
      best, match = max(alike)
      if best >= similarity:
        found.append((row, -match, best))
  return found


def _candidates(mine: np.ndarray, theirs: np.ndarray):
  """Returns pairs of a row and the at most 8 rows with most bands in common."""
  shared: dict[int, collections.Counter[int]] = {}
  for band in range(_BANDS):
    buckets: dict[int, list[int]] = {_NONE: []}
    for row, key in enumerate(theirs[:, band].tolist()):
      few = buckets.setdefault(key, [])
      # Of many equal bands a few rows are enough as candidates.
      if key != _NONE and len(few) < _FEW:
        few.append(row)
    for row, key in enumerate(mine[:, band].tolist()):
      if buckets.get(key):
        shared.setdefault(row, collections.Counter()).update(buckets[key])
  return [
    (row, sorted(times, key=lambda match: (-times[match], match))[:_FEW])
    for row, times in sorted(shared.items())
  ]


def _hashes_of(data: Dataset, field: str, rows: list[int]) -> dict:
  found = dataset.read_field(data, field, np.array(rows, np.int64))
  return {row: hashes(str(text or "")) for row, text in found}


def _bands(data: Dataset, field: str) -> np.ndarray:
  """Digests of the bands of each text, int64 [n, 16]; -1 for empty texts."""
  found = np.full((len(data.indices), _BANDS), _NONE, np.int64)
  kept: list[int] = []

  def sets() -> Iterator[np.ndarray]:
    for row, text in dataset.read_field(data, field):
      members = hashes(str(text or ""))
      if len(members):
        kept.append(row)
        yield members

  for values in minhash.signatures(sets(), _BANDS * _ROWS):
    # 63 bits, so that none is -1.
    found[kept[-1]] = [band >> 1 for band in minhash.bands(values, _BANDS)]
  return found


def near_prints(
  prints: np.ndarray, others: np.ndarray
) -> list[tuple[int, int, float]]:
  """Returns (row, row of the others, correlation) of similar thumbnails.

  Their correlation is at least 0.998, or at least 0.95 and eight times nearer
  to 1 than the fifth best match. The second condition finds cropped copies of
  photographs, without reporting images that are all alike, such as shirts on a
  black background.

  Args:
    prints: uint8 [n, 256]; see media.
    others: uint8 [m, 256]. Each of the n is compared with each of the m.
  """
  a, b = _centred(prints), _centred(others)
  found = []
  for start in range(0, len(a), _BLOCK):
    block = a[start : start + _BLOCK]
    top = np.zeros((len(block), _RANK), np.float32)
    match = np.zeros(len(block), np.int64)
    for begin in range(0, len(b), 4 * _BLOCK):
      alike = block @ b[begin : begin + 4 * _BLOCK].T
      here = alike.argmax(1)
      better = alike[np.arange(len(block)), here] > top[:, -1]
      match[better] = here[better] + begin
      some = np.partition(alike, -min(_RANK, alike.shape[1]), 1)[:, -_RANK:]
      top = np.sort(np.concatenate([top, some], 1), 1)[:, -_RANK:]
    best, usual = top[:, -1], top[:, 0]
    alone = (best >= _STANDS_OUT) & (1 - best <= (1 - usual) * _NEARER)
    near = (best >= _CORRELATION) | (alone & (len(b) >= _RANK))
    found += [
      (start + int(row), int(match[row]), float(best[row]))
      for row in np.flatnonzero(near)
    ]
  return found


def _centred(prints: np.ndarray) -> np.ndarray:
  """Returns rows with mean 0 and length 1, float32; zeros if nearly flat."""
  x = prints.astype(np.float32)
  x -= x.mean(1, keepdims=True)
  length = np.linalg.norm(x, axis=1, keepdims=True)
  flat = length < _LEAST_SPREAD * np.sqrt(x.shape[1])
  return np.where(flat, 0, x / np.maximum(length, 1e-9)).astype(np.float32)
