"""Hashed features of a word: its spelling, shape, prefixes and trigrams.

They are the features of taggers with conditional random fields (Ratnaparkhi
1996; Okazaki's CRFsuite tutorial) and fastText's character n-grams
(arXiv:1607.04606), as numbers 1 … buckets - 1 by CRC-32; 0 is no feature.
"""

import functools
import itertools
import unicodedata
import zlib
from collections.abc import Callable

import numpy as np

_TRIGRAMS = 12
_LONGEST = 100  # the number of characters of a word that are used
# Spelling, lower case, two shapes, kind, four prefixes and four suffixes.
_FIXED = 13
COUNT = _FIXED + _TRIGRAMS


def hasher(buckets: int) -> Callable[[str], np.ndarray]:
  """Returns (word) -> int32 [COUNT].

  Raises:
    ValueError: there are fewer than two buckets.
  """
  if not isinstance(buckets, int) or buckets < 2:
    raise ValueError(f"buckets {buckets!r} is not an integer above 1")

  @functools.lru_cache(maxsize=2**16)
  def of_beginning(word: str) -> np.ndarray:
    numbers = np.zeros(COUNT, np.int32)
    for i, feature in enumerate(features(word)):
      if feature:
        content = feature.encode("utf-8", "replace")
        numbers[i] = 1 + zlib.crc32(content) % (buckets - 1)
    return numbers

  return lambda word: of_beginning(word[:_LONGEST])


def features(word: str) -> list[str]:
  """Returns at most COUNT features of a word; "" for a missing one."""
  lower = word.lower()
  shape = "".join(map(_shape, word[:20]))
  short = "".join(c for c, _ in itertools.groupby(shape))
  found = [f"w={word}", f"l={lower}", f"s={shape}", f"t={short}", _kind(word)]
  for n in range(1, 5):
    found.append(f"p={lower[:n]}" if len(lower) >= n else "")
    found.append(f"e={lower[-n:]}" if len(lower) >= n else "")
  padded = f"<{lower}>"
  trigrams = [padded[i : i + 3] for i in range(len(padded) - 2)]
  return found + [f"3={each}" for each in trigrams[:_TRIGRAMS]]


def _shape(character: str) -> str:
  """Maps a capital to X, another letter to x, a digit to d; keeps the rest."""
  if character.isupper():
    return "X"
  if character.isalpha():
    return "x"
  return "d" if character.isdigit() else character


def _kind(word: str) -> str:
  """Returns a word's kind on the web: an address, a handle, a tag; or ""."""
  lower = word.lower()
  if lower.startswith(("http:", "https:", "www.")):
    return "k=address"
  if word[:1] in "@#" and len(word) > 1:
    return f"k={word[:1]}"
  if word and all(unicodedata.category(c)[0] in "PS" for c in word):
    return "k=punctuation"
  return ""
