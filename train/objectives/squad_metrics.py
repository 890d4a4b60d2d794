"""Exact match and F1 of answers, by the rules of SQuAD's evaluation scripts.

The scripts are not a package, and `evaluate` fetches its copy when it is used.

An answer is normalized: lower case, no ASCII punctuation, no articles (a, an,
the), single spaces. It matches exactly where it then equals one of the
references; F1 is of its words as a bag against a reference's, and the best
reference counts (Rajpurkar et al., arXiv:1606.05250, section 6.1).

Version 2 (arXiv:1806.03822) knows questions without an answer: their reference
is the empty string, and where either side is empty F1 is whether both are.
References that normalize to nothing do not count there.

`mixed` is MLQA's rule for Chinese (arXiv:1910.07475): every Chinese character
is a word by itself, other text is parted by white space, punctuation of any
script is dropped, and there are no articles.
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
  """The answer as it is compared: its words, joined by single spaces."""
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
  """1 where both normalize to the same, else 0."""
  return float(normalize(prediction, mixed) == normalize(reference, mixed))


def f1(
  prediction: str, reference: str, mixed: bool = False, version: int = 1
) -> float:
  """F1 of the words of both as bags."""
  told = normalize(prediction, mixed).split()
  true = normalize(reference, mixed).split()
  if version == 2 and not (told and true):
    return float(told == true)
  shared = (Counter(told) & Counter(true)).total()
  if not shared:
    return 0.0
  precision, recall = shared / len(told), shared / len(true)
  return 2 * precision * recall / (precision + recall)


def best(
  prediction: str,
  references: Sequence[str],
  mixed: bool = False,
  version: int = 1,
) -> tuple[float, float]:
  """(exact match, F1) against the best reference for each, in 0 … 1.

  Raises:
    ValueError: version 1, and there is no reference.
  """
  if version == 2:
    references = [r for r in references if normalize(r, mixed)] or [""]
  if not references:
    raise ValueError("a question without an answer is of SQuAD's version 2")
  return (
    max(exact(prediction, r, mixed) for r in references),
    max(f1(prediction, r, mixed, version) for r in references),
  )


def score(
  predictions: Sequence[str],
  references: Sequence[Sequence[str]],
  mixed: bool = False,
) -> dict[str, float]:
  """{"exact_match", "f1"} in per cent, the means over all questions.

  Where some question has no reference, version 2's rules hold for all, and
  there are "answerable_f1" and "unanswerable_f1" besides.

  Raises:
    ValueError: there is no question.
  """
  if not references:
    raise ValueError("there is no question to score")
  version = version_of(references)
  pairs = [
    best(told, true, mixed, version)
    for told, true in zip(predictions, references, strict=True)
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
  """2 where some question has no reference, else 1."""
  return 1 if all(references) else 2
