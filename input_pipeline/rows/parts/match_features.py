"""Features of the matches between a question and a text.

Exact matches are the feature that helps most in DrQA (Chen et al.,
arXiv:1704.00051, section 3.2); the sums of matches around a word, weighted by
rarity, are those of MCTest's sliding window (Richardson et al., EMNLP 2013).
"""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

NAMES = (
  "exact",  # the word is in the other text, ignoring case
  "stem",  # the other text has a word with the same first five letters
  "run",  # the longest run of words around it in the other text, at most four
  "rarity",  # log(1 + 1 / count in its own text) / log 2
  "near5",  # share of the question's words within five words, by rarity
  "near15",  # the same within fifteen words
  "sentence",  # the same within the sentence
  "capital",
  "upper",
  "digit",
  "punctuation",
)
COUNT = len(NAMES) + 1  # and whether a token is the first of its word
_LONGEST = 4
_STOPS = frozenset(".!?。！？…")


def match(
  question: Sequence[str], text: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
  """Returns features of the words of both, float32 [n, len(NAMES)] in 0 … 1.

  The window and sentence features are computed for the text's words only.
  """
  asked = [word.casefold() for word in question]
  found = [word.casefold() for word in text]
  return (
    _features(question, asked, found, near=False),
    _features(text, found, asked, near=True),
  )


def _features(spelled, own: list[str], other: list[str], near: bool):
  out = np.zeros((len(own), len(NAMES)), np.float32)
  if not own:
    return out
  vocabulary = {w for w in other if any(map(str.isalnum, w))}
  stems = {w[:5] for w in vocabulary if len(w) >= 4}
  counts = Counter(own)
  exact = np.array([w in vocabulary for w in own])
  rarity = np.log1p(1 / np.array([counts[w] for w in own])) / math.log(2)
  out[:, 0] = exact
  out[:, 1] = [w in vocabulary or (len(w) >= 4 and w[:5] in stems) for w in own]
  out[:, 2] = _runs(own, other) / _LONGEST
  out[:, 3] = rarity
  if near and vocabulary:
    sums = np.concatenate([[0.0], np.cumsum(np.where(exact, rarity, 0.0))])
    places = np.arange(len(own))
    for column, reach in ((4, 5), (5, 15)):
      first = np.maximum(places - reach, 0)
      last = np.minimum(places + reach + 1, len(own))
      out[:, column] = sums[last] - sums[first]
    number = np.cumsum([0, *(w in _STOPS for w in own[:-1])])
    within = np.bincount(number, weights=np.where(exact, rarity, 0.0))
    out[:, 6] = within[number]
    out[:, 4:7] = np.minimum(out[:, 4:7] / len(vocabulary), 1)
  out[:, 7:] = [
    (w[:1].isupper(), w.isupper(), w[:1].isdigit(), not w[:1].isalnum())
    for w in spelled
  ]
  return out


def _runs(own: list[str], other: list[str]) -> np.ndarray:
  """Returns the longest run around each word that `other` has, at most four."""
  longest = np.zeros(len(own), np.float32)
  for n in range(1, _LONGEST + 1):
    known = {tuple(other[i : i + n]) for i in range(len(other) - n + 1)}
    for i in range(len(own) - n + 1):
      if tuple(own[i : i + n]) in known:
        longest[i : i + n] = n
  return longest
