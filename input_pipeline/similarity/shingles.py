"""Hashes of the n-grams of a text, of words or of characters."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from input_pipeline.similarity.text_hashes import library

UNITS = ("words", "characters", "auto")
# Languages that are written without spaces between words.
UNSPACED = frozenset("zh ja th lo km my bo yue wuu".split())
_WORD = re.compile(r"\w+")
_UNSPACED_CHARACTER = re.compile(
  r"[\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff"
  r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
# Odd numbers from the digits of the golden ratio and of pi.
_BASE = np.uint64(0x9E3779B97F4A7C15)
_SEED = np.uint64(0x243F6A8885A308D3)


def is_unspaced(text: str, fields: Mapping[str, Any]) -> bool:
  """Whether a text is written without spaces between words.

  Decided by fields["lang"] if it is set, else by the script of most letters.
  """
  language = fields.get("lang")
  if isinstance(language, str) and language:
    return re.split("[-_]", language.lower())[0] in UNSPACED
  letters = sum(map(len, _WORD.findall(text[:2_000])))
  found = len(_UNSPACED_CHARACTER.findall(text[:2_000]))
  return 2 * found > letters


def has_unspaced(text: str) -> bool:
  """Whether the text has a character of such a script."""
  return bool(_UNSPACED_CHARACTER.search(text))


def tokens(text: str, characters: bool) -> np.ndarray:
  """uint64 [number of tokens]: hashes of words, or code points of characters.

  Tokens are lower-cased, and white space and punctuation are ignored.
  """
  words = _WORD.findall(text)
  if characters:
    joined = "".join(words)
    lowered = joined.lower()
    if len(lowered) != len(joined):  # Such as the dotted capital I, İ.
      lowered = "".join(c.lower()[0] for c in joined)
    data = lowered.encode("utf-32-le", "surrogatepass")
    return np.frombuffer(data, "<u4").astype(np.uint64)
  digest = library("xxhash").xxh3_64_intdigest
  hashes = (digest(w.lower().encode("utf-8", "surrogatepass")) for w in words)
  return np.fromiter(hashes, np.uint64, len(words))


def token_spans(text: str, characters: bool) -> np.ndarray:
  """int64 [number of tokens, 2]: the span in the text of each of `tokens`."""
  spans = np.array(
    [match.span() for match in _WORD.finditer(text)], np.int64
  ).reshape(-1, 2)
  if not characters:
    return spans
  starts = np.concatenate(
    [np.zeros(0, np.int64), *(np.arange(a, b) for a, b in spans)]
  )
  return np.stack([starts, starts + 1], 1)


def ngram_hashes(token: np.ndarray, n: int) -> np.ndarray:
  """uint64 hashes of the n-grams of tokens, in order; fewer tokens are one."""
  n = min(n, len(token))
  count = len(token) - n + 1
  if n == 0:
    return np.zeros(0, np.uint64)
  found = np.full(count, _SEED ^ np.uint64(n))
  for i in range(n):
    found = (found + token[i : i + count]) * _BASE
    found ^= found >> np.uint64(32)
  # The finaliser of SplitMix64 (Steele et al., 2014).
  found = (found ^ (found >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
  found = (found ^ (found >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
  return found ^ (found >> np.uint64(31))


def shingles(
  text: str, fields: Mapping[str, Any], n: int, unit: str
) -> np.ndarray:
  """uint64 hashes of a text's distinct n-grams, sorted.

  unit: "words", "characters", or "auto" for characters if is_unspaced.
  """
  characters = unit == "characters"
  if unit == "auto":
    characters = is_unspaced(text, fields)
  return np.unique(ngram_hashes(tokens(text, characters), n))


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
  """|a ∩ b| / |a ∪ b| of two sorted arrays without repeats; 0 of empty ones."""
  both = len(np.intersect1d(a, b, assume_unique=True))
  either = len(a) + len(b) - both
  return both / either if either else 0.0
