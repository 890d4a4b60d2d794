"""The occurrence of frequent words in texts."""

import collections
import re

import numpy as np

from input_pipeline.quality import dataset
from input_pipeline.quality.dataset import Dataset

# Words of letters, and all pairs of neighbouring Han characters.
_TOKEN = re.compile(
  r"[^\W\d_\u3040-\u30ff\u3400-\u9fff]{2,}"
  r"|(?=([\u3400-\u9fff]{2}))[\u3400-\u9fff]"
)
_LONGEST = 20_000
_MOST_COUNTED = 200_000


def words(text: str) -> set[str]:
  """Returns the distinct words of a text in lower case."""
  return {
    match.group(1) or match.group(0)
    for match in _TOKEN.finditer(text[:_LONGEST].lower())
  }


def common(data: list[Dataset], field: str, most: int) -> list[str]:
  """Returns the words that occur in the most texts of both data sets."""
  counts: collections.Counter[str] = collections.Counter()
  for each in data:
    for _, text in dataset.read_field(each, field):
      counts.update(words(str(text or "")))
      if len(counts) > _MOST_COUNTED:
        # A word that is rare so far is unlikely to be among the most frequent.
        counts = collections.Counter(
          dict(counts.most_common(_MOST_COUNTED // 2))
        )
  ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
  return [word for word, _ in ordered[:most]]


def presence(data: Dataset, field: str, vocabulary: list[str]) -> np.ndarray:
  """Returns whether each text contains each word, bool [n, words]."""
  places = {word: i for i, word in enumerate(vocabulary)}
  found = np.zeros((len(data.indices), len(vocabulary)), bool)
  for row, text in dataset.read_field(data, field):
    held = [places[w] for w in words(str(text or "")) if w in places]
    found[row, held] = True
  return found
