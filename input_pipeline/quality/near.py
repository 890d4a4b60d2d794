"""Records of two splits that are nearly the same: texts, images, audio."""

import re
import zlib

import numpy as np

from input_pipeline.quality import dataset
from input_pipeline.quality.dataset import Dataset

# MinHash: 16 bands of 4 find 99.9 % of the pairs of Jaccard similarity 0.8.
_BANDS, _ROWS = 16, 4
_PRIME = np.uint64(2**31 - 1)
# Part of a word or character 5-gram's meaning; of longer texts the start.
_GRAM = 5
_MOST_GRAMS = 20_000
_HAN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")
_WORD = re.compile(r"\w+")
# Of two thumbnails or spectra, centred; what is nearly flat is not compared.
_CORRELATION = 0.998
_LEAST_SPREAD = 4.0
_BLOCK = 2048
_NONE = -1
_FEW = 20


def grams(text: str) -> set[str]:
  """5-grams of words; of characters where a text is Chinese or Japanese.

  Case, white space and punctuation do not count. A text that is shorter is
  one gram.
  """
  words = _WORD.findall(text.lower())
  joined = "".join(words)
  if len(_HAN.findall(joined)) > len(joined) / 4:
    words, glue = list(joined), ""
  else:
    glue = " "
  words = words[:_MOST_GRAMS]
  return {
    glue.join(words[i : i + _GRAM])
    for i in range(max(1, len(words) - _GRAM + 1))
    if words
  }


def jaccard(a: set[str], b: set[str]) -> float:
  """The size of the intersection over that of the union; of nothing, 0."""
  return len(a & b) / len(a | b) if a or b else 0.0


def near_texts(
  data: Dataset, other: Dataset, field: str, similarity: float
) -> list[tuple[int, int, float]]:
  """(row of data, row of other, Jaccard similarity), the most alike of each.

  Candidates come from MinHash; each is then compared itself, so that none is
  told that is not as similar as asked for.
  """
  bands = _bands(data, field), _bands(other, field)
  pairs: set[tuple[int, int]] = set()
  for band in range(_BANDS):
    buckets: dict[int, list[int]] = {_NONE: []}
    for row, key in enumerate(bands[1][:, band].tolist()):
      few = buckets.setdefault(key, [])
      # Of many that are alike, a few are enough to be told.
      if key != _NONE and len(few) < _FEW:
        few.append(row)
    for row, key in enumerate(bands[0][:, band].tolist()):
      pairs.update((row, match) for match in buckets.get(key, ()))
  best: dict[int, tuple[int, int, float]] = {}
  ordered = sorted(pairs)
  mine = _grams_of(data, field, sorted({a for a, _ in ordered}))
  others = _grams_of(other, field, sorted({b for _, b in ordered}))
  for a, b in ordered:
    alike = jaccard(mine[a], others[b])
    if alike >= similarity and alike > best.get(a, (0, 0, 0.0))[2]:
      best[a] = (a, b, alike)
  return list(best.values())


def _grams_of(data: Dataset, field: str, rows: list[int]) -> dict[int, set]:
  found = dataset.read_field(data, field, np.array(rows, np.int64))
  return {row: grams(str(text or "")) for row, text in found}


def _bands(data: Dataset, field: str) -> np.ndarray:
  """The bands' digests of each text, int64 [n, 16]; -1 where it is empty."""
  # The same for all time: a stream of fixed seed.
  random = np.random.default_rng(5)
  factors = random.integers(1, int(_PRIME), (2, _BANDS * _ROWS, 1), np.uint64)
  found = np.full((len(data.indices), _BANDS), _NONE, np.int64)
  for row, text in dataset.read_field(data, field):
    hashes = [
      zlib.crc32(g.encode("utf-8", "surrogatepass"))
      for g in grams(str(text or ""))
    ]
    if not hashes:
      continue
    x = np.array(hashes, np.uint64) % _PRIME
    least = ((x * factors[0] + factors[1]) % _PRIME).min(1)
    rows = least.astype(np.uint32).reshape(_BANDS, _ROWS)
    found[row] = [zlib.crc32(band.tobytes()) for band in rows]
  return found


def near_prints(
  prints: np.ndarray, others: np.ndarray
) -> list[tuple[int, int, float]]:
  """(row, row of the others, correlation) of thumbnails nearly the same.

  Args:
    prints: uint8 [n, 256]; see media.
    others: uint8 [m, 256]. Each of the n is compared with each of the m.
  """
  a, b = _centred(prints), _centred(others)
  found = []
  for start in range(0, len(a), _BLOCK):
    block = a[start : start + _BLOCK]
    best = np.full(len(block), -1.0, np.float32)
    match = np.zeros(len(block), np.int64)
    for begin in range(0, len(b), 4 * _BLOCK):
      alike = block @ b[begin : begin + 4 * _BLOCK].T
      here = alike.argmax(1)
      value = alike[np.arange(len(block)), here]
      better = value > best
      best[better], match[better] = value[better], here[better] + begin
    found += [
      (start + int(row), int(match[row]), float(best[row]))
      for row in np.flatnonzero(best >= _CORRELATION)
    ]
  return found


def _centred(prints: np.ndarray) -> np.ndarray:
  """float32 of length 1 and mean 0; zeros where nearly flat."""
  x = prints.astype(np.float32)
  x -= x.mean(1, keepdims=True)
  length = np.linalg.norm(x, axis=1, keepdims=True)
  flat = length < _LEAST_SPREAD * np.sqrt(x.shape[1])
  return np.where(flat, 0, x / np.maximum(length, 1e-9)).astype(np.float32)
