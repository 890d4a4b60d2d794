"""Records of two splits that are nearly the same: texts, images, audio."""

import collections
from collections.abc import Iterator

import numpy as np

from input_pipeline.quality import dataset
from input_pipeline.quality.dataset import Dataset
from input_pipeline.similarity import minhash, shingles

# MinHash: 16 bands of 4 find 99.9 % of the pairs of Jaccard similarity 0.8.
_BANDS, _ROWS = 16, 4
_GRAM = 5
_LONGEST = 100_000
# Of two thumbnails or spectra, centred; what is nearly flat is not compared.
_CORRELATION = 0.998
_STANDS_OUT, _NEARER, _RANK = 0.95, 0.125, 5
_LEAST_SPREAD = 4.0
_BLOCK = 2048
# Pairs of prints that are compared, half a minute's work.
MOST_PAIRS = 2_000_000_000
_NONE = -1
# Candidates of a text; and texts whose candidates are held at once.
_FEW, _TEXTS = 8, 16


def hashes(text: str) -> np.ndarray:
  """The distinct 5-grams of a text as sorted uint64, as `prepare` has them.

  They are n-grams of words, or of characters where a text is written without
  spaces between words. Case, white space and punctuation do not count; a
  shorter text is one gram. Of longer texts the first 100,000 characters count.
  """
  return shingles.shingles(text[:_LONGEST], {}, _GRAM, "auto")


def near_texts(
  data: Dataset, other: Dataset, field: str, similarity: float
) -> list[tuple[int, int, float]]:
  """(row of data, row of other, Jaccard similarity), the most alike of each.

  Candidates come from MinHash; each is then compared itself, so that none is
  told that is not as similar as asked for.
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
  """(row, rows of the others that share most bands with it, at most 8)."""
  shared: dict[int, collections.Counter[int]] = {}
  for band in range(_BANDS):
    buckets: dict[int, list[int]] = {_NONE: []}
    for row, key in enumerate(theirs[:, band].tolist()):
      few = buckets.setdefault(key, [])
      # Of many that are alike, a few are enough to be told.
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
  """The bands' digests of each text, int64 [n, 16]; -1 where it is empty."""
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
  """(row, row of the others, correlation) of thumbnails nearly the same.

  They correlate to 0.998; or to 0.95, where that is eight times nearer to 1
  than the fifth best match is. Photographs differ so much that a cropped copy
  stands out, while of shirts on a black ground many are nearly alike.

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
  """float32 of length 1 and mean 0; zeros where nearly flat."""
  x = prints.astype(np.float32)
  x -= x.mean(1, keepdims=True)
  length = np.linalg.norm(x, axis=1, keepdims=True)
  flat = length < _LEAST_SPREAD * np.sqrt(x.shape[1])
  return np.where(flat, 0, x / np.maximum(length, 1e-9)).astype(np.float32)
