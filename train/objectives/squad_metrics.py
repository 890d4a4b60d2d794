"""Exact match and F1 of answers, by the rules of SQuAD's evaluation scripts.

They are implemented here because the scripts are not a package and the package
`evaluate` downloads its copy when it is used.

Answers are normalized: lower case, no ASCII punctuation, no articles (a, an,
the), single spaces. An exact match equals one of the references after
normalization. F1 compares the bags of words of the answer and a reference, and
the best reference counts (Rajpurkar et al., arXiv:1606.05250, section 6.1).

Version 2 (arXiv:1806.03822) adds questions without an answer, whose reference
is the empty string. If either text is empty, F1 is 1 if both are, else 0.
References that are empty after normalization are ignored.

`mixed` selects MLQA's rules for Chinese (arXiv:1910.07475): every Chinese
character is a word, other text is split at white space, punctuation of all
scripts is removed, and articles are kept.
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = frozenset(string.punctuation)
_CHINESE = re.compile("([\u4e00-\u9fa5])")


def normalize(text: str, mixed: bool = False) -> str:
  """Returns the normalized answer: its words, joined by single spaces."""
  text = text.lower()
  if mixed:
    kept = (
      c
      for c in text
      if c not in _PUNCTUATION and unicodedata.category(c)[0] != "P"
    )
    text = _CHINESE.sub(r" \1 ", "".join(kept))
  else:
    text = "".join(c for c in text if c not in _PUNCTUATION)
    text = _ARTICLES.sub(" ", text)
  return " ".join(text.split())


def exact(prediction: str, reference: str, mixed: bool = False) -> float:
  """Returns 1 if both are equal after normalization, else 0."""
  return float(normalize(prediction, mixed) == normalize(reference, mixed))


def f1(
  prediction: str, reference: str, mixed: bool = False, version: int = 1
) -> float:
  """Returns the F1 of the bags of words of both texts."""
  predicted = normalize(prediction, mixed).split()
  true = normalize(reference, mixed).split()
  if version == 2 and not (predicted and true):
    return float(predicted == true)
  shared = (Counter(predicted) & Counter(true)).total()
  if not shared:
    return 0.0
  precision, recall = shared / len(predicted), shared / len(true)
  return 2 * precision * recall / (precision + recall)


def best(
  prediction: str,
  references: Sequence[str],
  mixed: bool = False,
  version: int = 1,
) -> tuple[float, float]:
  """Returns the greatest exact match and F1 over the references, in 0 … 1.

  Raises:
    ValueError: there is no reference in version 1.
  """
  if version == 2:
    references = [r for r in references if normalize(r, mixed)] or [""]
  if not references:
    raise ValueError(
      "questions without an answer need version 2 of SQuAD's rules"
    )
  return (
    max(exact(prediction, r, mixed) for r in references),
    max(f1(prediction, r, mixed, version) for r in references),
  )


def score(
  predictions: Sequence[str],
  references: Sequence[Sequence[str]],
  mixed: bool = False,
) -> dict[str, float]:
  """Returns {"exact_match", "f1"} in percent, the means over all questions.

  If any question has no reference, the rules of version 2 apply to all, and the
  result also has "answerable_f1" and "unanswerable_f1".

  Raises:
    ValueError: there are no questions.
  """
  if not references:
    raise ValueError("there are no questions to score")
  version = version_of(references)
  pairs = [
    best(predicted, true, mixed, version)
    for predicted, true in zip(predictions, references, strict=True)
  ]
  found = {
    "exact_match": 100 * sum(e for e, _ in pairs) / len(pairs),
    "f1": 100 * sum(f for _, f in pairs) / len(pairs),
  }
  if version == 2:
    for name, wanted in (("answerable_f1", True), ("unanswerable_f1", False)):
      chosen = [
        f
        for (_, f), true in zip(pairs, references, strict=True)
        if bool(true) == wanted
      ]
      if chosen:
        found[name] = 100 * sum(chosen) / len(chosen)
  return found


def version_of(references: Sequence[Sequence[str]]) -> int:
  """Returns 2 if any question has no reference, else 1."""
  return 1 if all(references) else 2
