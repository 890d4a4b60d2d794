"""Accuracy of text classification, with each run as in its config.

  python -m input_pipeline.fetch sst2 trec hotel
  python benchmarks/language/text_classification.py --data=data --runs=runs

trains and tests, in this order: cls_sst2 (SST-2's sentences, from scratch),
bert_small and then bert_finetune (pre-trained on the same sentences), a wider
bert_small and then cls_sst2_vectors (from its vectors), cls_trec, and cls_hotel
on each of five folds, with their mean. For each it prints the accuracy on the
test set and the seconds of the last command. --only=trec runs one of sst2,
bert, vectors, trec and hotel; --only=hotel3 one fold. An existing run is not
repeated.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parents[2]
FOLDS = 5


def train(config: str, runs: pathlib.Path, name: str, *settings: str) -> str:
  """Runs a config in runs/NAME unless that exists; returns its workdir."""
  workdir = runs / name
  command = ["-m", "train.main", f"--config={config}"]
  command += [f"--workdir={workdir}", *settings]
  if not (workdir / "seconds").exists():
    start = time.perf_counter()
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, *command], check=True, env=environment)
    seconds = time.perf_counter() - start
    (workdir / "seconds").write_text(f"{seconds:.0f}")
  return str(workdir)


def figures(workdir: str) -> tuple[float, int]:
  """Returns (test accuracy in percent, seconds) of a finished run."""
  found = {}
  with open(os.path.join(workdir, "metrics.jsonl")) as lines:
    for line in lines:
      found |= json.loads(line)
  seconds = int((pathlib.Path(workdir) / "seconds").read_text())
  return 100 * found["test/accuracy"], seconds


def source(key: str, data: str, path: str) -> str:
  """Returns the flag that sets the source of config.KEY."""
  return f"--config.{key}.source=jsonl:{data}/{path}.jsonl"


def sst2(config, runs, data, *settings, name=None):
  """Trains a config of SST-2 in runs/NAME, or its own; returns the workdir."""
  return train(
    config,
    runs,
    name or config,
    source("data", data, "sst2/train"),
    source("evals.val", data, "sst2/validation"),
    *settings,
  )


def main() -> None:
  """Runs the selected experiments; prints a line for each."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--data", default="data")
  parser.add_argument("--runs", default="runs", type=pathlib.Path)
  parser.add_argument("--only", default="")
  flags = parser.parse_args()
  data, runs = flags.data, flags.runs
  rows = []

  def wanted(name: str) -> bool:
    return not flags.only or name.startswith(flags.only) or name == flags.only

  def add(name: str, workdir: str) -> float:
    accuracy, seconds = figures(workdir)
    rows.append(f"| {name} | {accuracy:.2f} % | {seconds} s |")
    return accuracy

  test = source("evals.test", data, "sst2/test")
  if wanted("sst2"):
    add("SST-2, from scratch", sst2("cls_sst2", runs, data, test))
  if wanted("bert"):
    body = sst2("bert_small", runs, data)
    tuned = sst2("bert_finetune", runs, data, test, f"--init_from={body}")
    add("SST-2, pre-trained on its sentences", tuned)
  if wanted("vectors"):
    wide = ("--config.model.dim=128", "--config.model.hidden=256")
    wide += ("--config.data.tokenizer=sentencepiece?vocab_size=8000",)
    wide += ("--config.total_steps=2400",)
    body = sst2("bert_small", runs, data, *wide, name="bert_wide")
    tuned = sst2("cls_sst2_vectors", runs, data, test, f"--init_from={body}")
    add("SST-2, from vectors pre-trained on its sentences", tuned)
  if wanted("trec"):
    place = source("data", data, "trec/train")
    test = source("evals.test", data, "trec/test")
    add("TREC", train("cls_trec", runs, "cls_trec", place, test))
  folds = []
  for fold in range(FOLDS):
    if wanted(f"hotel{fold}"):
      place = source("data", data, f"hotel/fold{fold}_train")
      test = source("evals.test", data, f"hotel/fold{fold}_test")
      workdir = train("cls_hotel", runs, f"hotel{fold}", place, test)
      folds.append(add(f"hotel reviews, fold {fold}", workdir))
  if len(folds) == FOLDS:
    mean, spread = statistics.mean(folds), statistics.stdev(folds)
    rows.append(f"| hotel reviews, mean | {mean:.2f} ± {spread:.2f} % | |")
  print("\n".join(["| what | test accuracy | time |", "|---|---|---|", *rows]))


if __name__ == "__main__":
  main()
