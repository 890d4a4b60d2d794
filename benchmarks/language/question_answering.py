"""Exact match and F1 of answers, compared to the sliding window's.

Ours are the predictions in the workdir of a run of configs/text/qa_newwiki.py
or qa_xquad_zh.py; the baseline is benchmarks/language/sliding_window_qa.py on
the same questions. --script is the file compute_score.py of the metric squad of
the library evaluate; if given, its figures on the same answers are printed too.

  python -m train.main --config=configs/text/qa_newwiki.py --workdir=runs/qa
  PYTHONPATH=. python benchmarks/language/question_answering.py \
    --source=jsonl:data/newwiki/validation.jsonl \
    --predictions=runs/qa/val_predictions.json
  python -m train.main --config=configs/text/qa_xquad_zh.py --workdir=runs/qa_zh
  PYTHONPATH=. python benchmarks/language/question_answering.py --language=zh \
    --source=jsonl:data/xquad_zh/test.jsonl \
    --predictions=runs/qa_zh/test_predictions.json
"""

import argparse
import importlib.util
import json

import numpy as np
import sliding_window_qa

from input_pipeline.sources import open_source
from train.objectives import squad_metrics


def main() -> None:
  """Prints a row for each system."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--source", required=True)
  parser.add_argument("--split", default="all")
  parser.add_argument("--predictions", required=True, help="{id: answer}")
  parser.add_argument("--language", default="en", choices=("en", "zh"))
  parser.add_argument("--longest", type=int, default=8)
  parser.add_argument("--script", help="evaluate's metrics/squad")
  given = parser.parse_args()
  source = open_source(given.source, given.split)
  records = source.read(np.arange(source.length))
  with open(given.predictions, encoding="utf-8") as file:
    told = json.load(file)
  ours = [told[identity] for identity in records["id"]]
  asked = zip(records["question"], records["context"], strict=True)
  window = [sliding_window_qa.answer(q, c, given.longest) for q, c in asked]
  references = [each["text"] for each in records["answers"]]
  print(f"{given.source}: {len(ours)} questions")
  for name, answers in (("ours", ours), ("sliding window", window)):
    found = squad_metrics.score(answers, references, given.language == "zh")
    print(_row(name, found))
    if given.script:
      plain = squad_metrics.score(answers, references)
      other = _of_script(given.script, records["id"], answers, references)
      print(_row("  by whitespace", plain))
      print(_row("  evaluate's script", other))


def _row(name: str, found: dict[str, float]) -> str:
  return f"{name:20} " + "  ".join(f"{k} {v:.4f}" for k, v in found.items())


def _of_script(path: str, ids, answers, references) -> dict[str, float]:
  """Returns the figures of SQuAD's script, as in the library evaluate."""
  spec = importlib.util.spec_from_file_location("compute_score", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  questions = [
    {"id": identity, "answers": [{"text": text} for text in texts]}
    for identity, texts in zip(ids, references, strict=True)
  ]
  told = dict(zip(ids, answers, strict=True))
  return module.compute_score([{"paragraphs": [{"qas": questions}]}], told)


if __name__ == "__main__":
  main()
