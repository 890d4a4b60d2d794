"""The sliding window of MCTest as an untrained baseline for SQuAD.

Richardson et al. (EMNLP 2013, algorithms 1 and 2): the score of an answer is
the maximum, over windows of the text, of the sum of log(1 + 1 / count) over the
window's words that are in the question or the answer, minus the distance from
the answer to the nearest word of the question. The width of a window is the
number of distinct words in question and answer. As in SQuAD (arXiv:1606.05250,
section 5.1) the candidates are from the sentence that shares most with the
question; here they are all its spans of at most --longest words. Chinese
characters count as words.

  PYTHONPATH=. python benchmarks/language/sliding_window_qa.py \
    --source=jsonl:data/newwiki/validation.jsonl
  PYTHONPATH=. python benchmarks/language/sliding_window_qa.py \
    --source=jsonl:data/xquad_zh/test.jsonl --language=zh
"""

import argparse
import math
from collections import Counter

import numpy as np

from input_pipeline.sources import open_source
from input_pipeline.tokenizers.parts import offsets
from train.objectives import squad_metrics

_STOPS = frozenset(".!?。！？")
# Too frequent to measure a distance; Richardson et al. use more for English.
_COMMON = frozenset(
  "a an the of in on at to for by and or is are was were be been do does did "
  "what who whom which when where how why with from as that this it its".split()
)


def main() -> None:
  """Prints exact match and F1."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--source", required=True)
  parser.add_argument("--split", default="all")
  parser.add_argument("--language", default="en", choices=("en", "zh"))
  parser.add_argument("--longest", type=int, default=8)
  given = parser.parse_args()
  source = open_source(given.source, given.split)
  records = source.read(np.arange(source.length))
  told = [
    answer(question, context, given.longest)
    for question, context in zip(
      records["question"], records["context"], strict=True
    )
  ]
  references = [each["text"] for each in records["answers"]]
  found = squad_metrics.score(told, references, given.language == "zh")
  figures = "  ".join(f"{name} {value:.2f}" for name, value in found.items())
  print(f"{given.source}  {len(told)} questions  {figures}")


def answer(question: str, context: str, longest: int) -> str:
  """Returns the span of the text with the highest score; the first on ties."""
  spans = [
    (a + len(context[a:b]) - len(context[a:b].lstrip()), b)
    for a, b in offsets.words(context)
  ]
  words = [context[a:b].strip().casefold() for a, b in spans]
  asked = {question[a:b].strip().casefold() for a, b in offsets.words(question)}
  asked = {word for word in asked if word.isalnum()}
  numbers = {word: i for i, word in enumerate(dict.fromkeys(words))}
  ids = np.array([numbers[word] for word in words])
  counts = Counter(words)
  worth = np.array([math.log(1 + 1 / counts[word]) for word in words])
  in_question = np.array([word in asked for word in words])
  near = _distances(words, asked)
  first, last = _sentence(words, worth * in_question)
  best, chosen = -math.inf, (first, first)
  for i in range(first, last):
    for j in range(i, min(i + longest, last)):
      inside = np.isin(ids, ids[i : j + 1])
      size = len(asked | set(words[i : j + 1]))
      sums = np.cumsum([0.0, *np.where(in_question | inside, worth, 0.0)])
      width = min(size, len(words))
      value = (sums[width:] - sums[:-width]).max()
      value -= min(
        (near[k] for k in range(i, j + 1) if words[k] not in asked | _COMMON),
        default=1.0,
      )
      if value > best:
        best, chosen = value, (i, j)
  return context[spans[chosen[0]][0] : spans[chosen[1]][1]].strip()


def _distances(words: list[str], asked: set[str]) -> np.ndarray:
  """Returns each word's distance to the question's nearest word, in 0 … 1."""
  places = [
    i for i, word in enumerate(words) if word in asked and word not in _COMMON
  ]
  if not places or len(words) < 2:
    return np.ones(len(words))
  apart = np.abs(np.arange(len(words))[:, None] - np.array(places)[None])
  return np.minimum(apart.min(axis=1) / (len(words) - 1), 1.0)


def _sentence(words, worth) -> tuple[int, int]:
  """Returns (start, end) of the sentence that shares most with the question."""
  ends = [i + 1 for i, word in enumerate(words) if word in _STOPS]
  bounds = [0, *ends, len(words)]
  pairs = [
    (a, b) for a, b in zip(bounds[:-1], bounds[1:], strict=True) if a < b
  ]
  return max(pairs, key=lambda pair: worth[pair[0] : pair[1]].sum())


if __name__ == "__main__":
  main()
