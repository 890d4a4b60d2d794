"""Span F1 of named entities, compared to CRFsuite's conditional random field.

The baseline is sklearn_crfsuite (L-BFGS) on the features of
input_pipeline/rows/parts/word_features.py of a word and of two to each side,
its penalties chosen on the validation split. Ours are the predictions in the
workdir of a run of configs/text/ner_wnut17.py; both are scored by
train/objectives/span_f1.py, which agrees with seqeval
(tests/train/objectives/spans_parity_test.py).

  python -m train.main --config=configs/text/ner_wnut17.py --workdir=runs/ner
  PYTHONPATH=. python benchmarks/language/entities.py --data=data/wnut17 \
    --workdir=runs/ner
"""

import argparse
import os
import time

import numpy as np

from input_pipeline.rows.parts import word_features
from input_pipeline.sources import open_source
from train.objectives import span_f1

# (c1, c2): weights of the l1 and of the squared l2 norm.
PENALTIES = ((0.0, 0.1), (0.05, 0.01), (0.1, 0.1))
REACH = 2


def main() -> None:
  """Prints a row for each system: precision, recall, F1, macro F1."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--data", required=True)
  parser.add_argument("--workdir", help="of a finished run")
  parser.add_argument("--iterations", type=int, default=100)
  given = parser.parse_args()
  splits = {
    name: _records(f"jsonl:{given.data}/{name}.jsonl")
    for name in ("train", "validation", "test")
  }
  if given.workdir:
    for key, name in (("val", "validation"), ("test", "test")):
      path = os.path.join(given.workdir, f"{key}.conll")
      _row(f"ours, {name}", splits[name][1], _told(path))
  begin = time.perf_counter()
  chosen = max(
    (_crf(splits, penalty, given.iterations) for penalty in PENALTIES),
    key=lambda found: found[0],
  )
  seconds = time.perf_counter() - begin
  for name, told in chosen[1].items():
    _row(f"CRFsuite {chosen[2]}, {name}", splits[name][1], told)
  print(f"CRFsuite: {seconds:.0f} s for {len(PENALTIES)} trainings")


def _crf(splits, penalty, iterations: int):
  """Returns (F1 on validation, {split: tags}, penalty) of a trained CRF."""
  import sklearn_crfsuite

  model = sklearn_crfsuite.CRF(
    c1=penalty[0],
    c2=penalty[1],
    max_iterations=iterations,
    all_possible_transitions=True,
    algorithm="lbfgs",
  )
  words, tags = splits["train"]
  model.fit([_features(each) for each in words], tags)
  told = {
    name: [list(t) for t in model.predict([_features(w) for w in words])]
    for name, (words, _) in splits.items()
    if name != "train"
  }
  score = span_f1.score(splits["validation"][1], told["validation"])
  print(f"CRFsuite {penalty}: validation F1 {100 * score['micro'].f1:.2f}")
  return score["micro"].f1, told, penalty


def _features(words: list[str]) -> list[list[str]]:
  own = [[f for f in word_features.features(word) if f] for word in words]
  found = []
  for i in range(len(words)):
    around = [
      f"{j}{feature}"
      for j in range(-REACH, REACH + 1)
      if j and 0 <= i + j < len(words)
      # The spelling, shape and kind of each neighbour.
      for feature in own[i + j][1:5]
    ]
    edges = ["first"] * (i == 0) + ["last"] * (i == len(words) - 1)
    found.append(["bias", *own[i], *around, *edges])
  return found


def _records(uri: str):
  source = open_source(uri, "all")
  found = source.read(np.arange(source.length))
  return list(found["words"]), list(found["tags"])


def _told(path: str) -> list[list[str]]:
  """Returns the tags in the last column of a CoNLL file."""
  source = open_source(f"conll:{path}", "all")
  return list(source.read(np.arange(source.length))["tags"])


def _row(name: str, true, told) -> None:
  found = span_f1.score(true, told)
  micro = found["micro"]
  print(
    f"{name:32} P {100 * micro.precision:5.2f}  R {100 * micro.recall:5.2f}"
    f"  F1 {100 * micro.f1:5.2f}  macro F1 {100 * found['macro'].f1:5.2f}"
  )


if __name__ == "__main__":
  main()
