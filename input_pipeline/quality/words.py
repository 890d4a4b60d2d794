"""In which texts the common words occur, as yes or no for each text."""

import collections
import re

import numpy as np

from input_pipeline.quality import dataset
from input_pipeline.quality.dataset import Dataset

# Words of letters, and each two neighbouring Han characters.
_TOKEN = re.compile(
  r"[^\W\d_\u3040-\u30ff\u3400-\u9fff]{2,}"
  r"|(?=([\u3400-\u9fff]{2}))[\u3400-\u9fff]"
)
_LONGEST = 20_000
_MOST_COUNTED = 200_000


def words(text: str) -> set[str]:
  """The words of a text in lower case, each once."""
  return {
    match.group(1) or match.group(0)
    for match in _TOKEN.finditer(text[:_LONGEST].lower())
  }


def common(data: list[Dataset], field: str, most: int) -> list[str]:
  """The words that occur in the most texts of some data sets together."""
  counts: collections.Counter[str] = collections.Counter()
  for each in data:
    for _, text in dataset.read_field(each, field):
      counts.update(words(str(text or "")))
      if len(counts) > _MOST_COUNTED:
        # What is rare so far will hardly be among the commonest.
        counts = collections.Counter(
          dict(counts.most_common(_MOST_COUNTED // 2))
        )
  ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
  return [word for word, _ in ordered[:most]]


def presence(data: Dataset, field: str, vocabulary: list[str]) -> np.ndarray:
  """bool [n, words]: whether a text holds a word."""
  places = {word: i for i, word in enumerate(vocabulary)}
  found = np.zeros((len(data.indices), len(vocabulary)), bool)
  for row, text in dataset.read_field(data, field):
    held = [places[w] for w in words(str(text or "")) if w in places]
    found[row, held] = True
  return found
