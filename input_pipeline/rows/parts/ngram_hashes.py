"""Hashed n-grams of a text: of its words, and of the characters of each word.

They are the features of a strong linear classifier (Joulin et al.,
arXiv:1607.01759; scikit-learn's "word" and "char_wb" analyzers), as numbers
from 1 to buckets - 1; 0 is padding.
"""

import functools
import re
import zlib
from collections.abc import Callable

import numpy as np

# Scripts that write no spaces between words, whose characters are words here:
# Thai to Khmer, kana, and the ideographs. A run of them, such as a clause, is
# nearly always new, and would only be learned by heart.
_UNSPACED = (
  "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf"
  "\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
# A word, or a single character that is neither a letter, a digit nor a space.
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+|[^\w\s]")
# The ends of a text, as checksums that hardly any word has.
_BEGIN, _END = 1, 2
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
# Cached texts. A text of 1,000 n-grams takes 4 kB.
_CACHED = 2**14


def hasher(
  words: int, characters: tuple[int, int], buckets: int, ends: bool = False
) -> Callable[[str, int], tuple[np.ndarray, np.ndarray]]:
  """Returns (text, salt) -> (ids of word n-grams, ids of character n-grams).

  Both are int32, in the order of the text. Case is ignored. A word is padded by
  a space on both sides, and no n-gram of characters spans two words. Equal
  n-grams of texts with different salts have different ids.

  Args:
    words: the longest n-grams of words; 0 for none.
    characters: (shortest, longest) n-grams of characters; (0, 0) for none.
    buckets: of the hash.
    ends: whether the beginning and the end of a text count as words; the
      n-gram of the beginning and as many words as `words` comes first.

  Raises:
    ValueError: an argument is out of range.
  """
  if type(words) is not int or words < 0:
    raise ValueError(f"words={words!r} is not a count")
  least, most = _bounds(characters)
  if not words and not most:
    raise ValueError("words=0 and characters=(0, 0) leave no n-grams")
  if type(buckets) is not int or not 2 <= buckets < 2**31:
    raise ValueError(f"buckets={buckets!r} is not an integer above 1")

  @functools.lru_cache(maxsize=_CACHED)
  def hashed(text: str, salt: int) -> tuple[np.ndarray, np.ndarray]:
    text = text.lower()
    begin = np.uint64(2 * salt + 1)
    found = [
      zlib.crc32(word.encode("utf-8", "replace"))
      for word in _WORD.findall(text)
    ]
    if ends and found:
      found = [_BEGIN, *found, _END]
    numbers = np.array(found, np.uint64)
    of_words = _grams(numbers, None, 1, words, begin)
    if ends and words:
      n = words + 1
      opening = _grams(numbers[:n], None, n, n, begin)
      of_words = np.concatenate([opening, of_words])
    padded = [f" {word} " for word in text.split()] if most else []
    points = np.frombuffer(
      "".join(padded).encode("utf-32-le", "replace"), np.uint32
    )
    place = np.repeat(np.arange(len(padded)), [len(word) for word in padded])
    of_characters = _grams(
      points.astype(np.uint64), place, least, most, begin + np.uint64(1)
    )
    return tuple(
      (1 + each % np.uint64(buckets - 1)).astype(np.int32)
      for each in (of_words, of_characters)
    )

  return hashed


def _bounds(characters) -> tuple[int, int]:
  try:
    least, most = characters
    right = all(type(n) is int for n in (least, most))
  except (TypeError, ValueError):
    right = False
  if not right or not (1 <= least <= most or least == most == 0):
    raise ValueError(
      f"characters={characters!r} is not (shortest, longest), such as (2, 5)"
    )
  return least, most


def _grams(numbers, place, least: int, most: int, begin) -> np.ndarray:
  """Hashes of n-grams of `numbers` that lie in one place, in their order."""
  if not most or not len(numbers):
    return np.zeros(0, np.uint64)
  hashes, starts, lengths = [], [], []
  mixed = _mix(numbers + begin)
  running = np.zeros(len(numbers), np.uint64)
  for n in range(1, min(most, len(numbers)) + 1):
    running = running[: len(numbers) - n + 1] * _FACTOR + mixed[n - 1 :]
    if n < least:
      continue
    start = np.arange(len(running))
    if place is not None:
      start = start[place[: len(running)] == place[n - 1 :]]
    hashes.append(_mix(running[start] + np.uint64(n)))
    starts.append(start)
    lengths.append(np.full(len(start), n))
  if not hashes:
    return np.zeros(0, np.uint64)
  order = np.lexsort((np.concatenate(lengths), np.concatenate(starts)))
  return np.concatenate(hashes)[order]


def _mix(x: np.ndarray) -> np.ndarray:
  """Spreads all bits of uint64 numbers over all bits."""
  x = (x ^ (x >> np.uint64(31))) * _FACTOR
  x = (x ^ (x >> np.uint64(29))) * _FACTOR
  return x ^ (x >> np.uint64(32))
