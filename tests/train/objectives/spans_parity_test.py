"""Span F1 against seqeval, on random tags, malformed ones among them."""

import random
import warnings

import pytest

from train.objectives import span_f1

TAGS = ["O", *(f"{p}-{t}" for p in "BIES" for t in ("per", "loc", "a-b"))]


def sequences(seed, tags):
  rng = random.Random(seed)
  return [
    [rng.choice(tags) for _ in range(rng.randint(1, 9))] for _ in range(40)
  ]


@pytest.mark.parametrize("tags", [TAGS, TAGS[:7], ["O", "B", "I", "B-x"]])
@pytest.mark.parametrize("seed", range(5))
def test_spans_and_scores_are_seqevals(seed, tags):
  pytest.importorskip("seqeval")
  from seqeval.metrics import classification_report
  from seqeval.metrics.sequence_labeling import get_entities

  true = sequences(seed, tags)
  rng = random.Random(-seed - 1)
  told = [
    [tag if rng.random() < 0.7 else rng.choice(tags) for tag in each]
    for each in true
  ]
  for each in (*true, *told):
    assert span_f1.spans(each) == get_entities(each)
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of types that nothing is predicted for
    wanted = classification_report(
      true, told, output_dict=True, zero_division=0
    )
  found = span_f1.score(true, told)
  names = {"micro avg": "micro", "macro avg": "macro"}
  names["weighted avg"] = "weighted"
  assert {names.get(k, k) for k in wanted} == set(found)
  for name, figures in wanted.items():
    one = found[names.get(name, name)]
    assert one == pytest.approx(
      (
        figures["precision"],
        figures["recall"],
        figures["f1-score"],
        figures["support"],
      )
    )
