"""Span F1 of tagged sequences, by the rules of conlleval and seqeval.

seqeval has had no release since 2020, so only the tests use it, as a reference.

A span is a maximal run of tags of one type in which all tags except the first
are I or E, and all except the last are B or I. A malformed tag, such as an I
that does not follow a tag of its type, begins a new span. A predicted span is
correct if the reference has a span of the same type, start and end (Tjong Kim
Sang and De Meulder, CoNLL 2003).
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

Span = tuple[str, int, int]  # type, first word, last word


class Score(NamedTuple):
  """Precision, recall and F1 in 0 … 1; a quotient by zero is 0.

  support: the number of spans in the reference.
  """

  precision: float
  recall: float
  f1: float
  support: int


def spans(tags: Sequence[str]) -> list[Span]:
  """Returns the spans of a sequence of tags.

  Tags are "O", "B-type", "I-type", "E-type" and "S-type". A tag without a type,
  such as "B", has the type "_".

  Raises:
    ValueError: a tag is invalid.
  """
  found: list[Span] = []
  open_type, goes_on = None, False  # of the span up to the previous word
  for i, tag in enumerate(tags):
    prefix, kind = _parts(tag)
    if prefix == "O":
      open_type = None
      continue
    if goes_on and kind == open_type and prefix in "IE":
      found[-1] = (kind, found[-1][1], i)
    else:
      found.append((kind, i, i))
    open_type, goes_on = kind, prefix in "BI"
  return found


def _parts(tag: str) -> tuple[str, str]:
  prefix, dash, kind = tag.partition("-")
  if prefix not in ("O", "B", "I", "E", "S") or (prefix == "O" and dash):
    raise ValueError(f"tag {tag!r} is neither O nor B-, I-, E- or S-TYPE")
  return prefix, kind or "_"


def score(
  references: Sequence[Sequence[str]], predictions: Sequence[Sequence[str]]
) -> dict[str, Score]:
  """Returns {type: Score}, sorted, then "micro", "macro" and "weighted".

  The micro average is computed over all spans. The macro average is the mean
  over the types that occur in the references or the predictions; "weighted" is
  this mean weighted by support.

  Raises:
    ValueError: a sequence and its reference have different lengths.
  """
  right: Counter = Counter()
  wanted: Counter = Counter()
  given: Counter = Counter()
  for i, (true, predicted) in enumerate(
    zip(references, predictions, strict=True)
  ):
    if len(true) != len(predicted):
      raise ValueError(
        f"sequence {i} has {len(predicted)} tags, but its reference {len(true)}"
      )
    true_spans, predicted_spans = set(spans(true)), set(spans(predicted))
    wanted.update(kind for kind, _, _ in true_spans)
    given.update(kind for kind, _, _ in predicted_spans)
    right.update(kind for kind, _, _ in true_spans & predicted_spans)
  by_type = {
    kind: _score(right[kind], given[kind], wanted[kind])
    for kind in sorted(wanted.keys() | given.keys())
  }
  each = list(by_type.values())
  total = wanted.total()
  return {
    **by_type,
    "micro": _score(right.total(), given.total(), total),
    "macro": _average(each, [1] * len(each), total),
    "weighted": _average(each, [s.support for s in each], total),
  }


def _score(right: int, given: int, wanted: int) -> Score:
  precision = right / given if given else 0.0
  recall = right / wanted if wanted else 0.0
  both = precision + recall
  return Score(
    precision, recall, 2 * precision * recall / both if both else 0.0, wanted
  )


def _average(each: list[Score], weights: list[int], support: int) -> Score:
  total = sum(weights)
  if not total:
    return Score(0.0, 0.0, 0.0, support)
  means = (
    sum(w * s[i] for w, s in zip(weights, each, strict=True)) / total
    for i in range(3)
  )
  return Score(*means, support)
