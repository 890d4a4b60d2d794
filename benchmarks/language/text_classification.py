"""Accuracy of text classification beside that of TF-IDF and regression.

  python -m input_pipeline.fetch sst2 trec hotel
  python benchmarks/language/text_classification.py --data=data --runs=runs

trains and tests, in this order: cls_sst2 (SST-2's sentences, from scratch),
bert_small and then bert_finetune (pre-trained on the same sentences), a wider
bert_small and then cls_sst2_vectors (from its vectors), cls_trec, and cls_hotel
on each of five folds, with their mean. For each it prints the accuracy on the
test set, the seconds of the last command, and the accuracy of the baseline:
logistic regression on the TF-IDF of n-grams of words (1 and 2) and of
characters within words (2 to 5), by scikit-learn, whose C and whose logarithm
of counts are chosen on the run's own validation data. --only=trec runs one of
sst2, bert, vectors, trec and hotel; --only=hotel3 one fold. An existing run is
not repeated.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time

import numpy as np

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


def known(runs: pathlib.Path, key: str, measure) -> float:
  """Returns measure(), which is kept in runs/KEY.baseline."""
  path = runs / f"{key}.baseline"
  if not path.exists():
    path.write_text(str(measure()))
  return float(path.read_text())


def baseline(train_path: str, test_path: str, val_path: str = "") -> float:
  """Returns the baseline's test accuracy in percent; see the module.

  Without val_path, the tenth that a run holds out is for validation. The chosen
  setting is then fitted to the training and the validation data.
  """
  from sklearn.feature_extraction.text import TfidfVectorizer
  from sklearn.linear_model import LogisticRegression
  from sklearn.pipeline import make_union

  from input_pipeline.sources import open_source

  def read(path: str, split: str):
    found = open_source(f"jsonl:{path}", split)
    rows = found.read(np.arange(found.length))
    return list(rows["text"]), [str(label) for label in rows["label"]]

  def fitted(texts, sublinear: bool):
    vectors = make_union(
      TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=sublinear),
      TfidfVectorizer(
        analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=sublinear
      ),
    )
    return vectors, vectors.fit_transform(texts)

  def score(train, labels, test, truth, strength: float) -> float:
    model = LogisticRegression(C=strength, max_iter=1000)
    return model.fit(train, labels).score(test, truth)

  learned = read(train_path, "all" if val_path else "train")
  held = read(val_path, "all") if val_path else read(train_path, "validation")
  found = {}
  for sublinear in (False, True):
    vectors, x = fitted(learned[0], sublinear)
    val = vectors.transform(held[0])
    for c in (1, 4, 16, 64):
      found[sublinear, c] = score(x, learned[1], val, held[1], c)
  sublinear, c = max(found, key=found.get)
  texts, labels = (a + b for a, b in zip(learned, held, strict=True))
  vectors, x = fitted(texts, sublinear)
  texts, truth = read(test_path, "all")
  return 100 * score(x, labels, vectors.transform(texts), truth, c)


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

  def add(name: str, workdir: str, *files: str) -> tuple[float, float]:
    accuracy, seconds = figures(workdir)
    paths = [f"{data}/{each}.jsonl" for each in files]
    key = "-".join(files).replace("/", "_")
    other = known(runs, key, lambda: baseline(*paths))
    rows.append(f"| {name} | {accuracy:.2f} % | {other:.2f} % | {seconds} s |")
    return accuracy, other

  test = source("evals.test", data, "sst2/test")
  files = ("sst2/train", "sst2/test", "sst2/validation")
  if wanted("sst2"):
    add("SST-2, from scratch", sst2("cls_sst2", runs, data, test), *files)
  if wanted("bert"):
    body = sst2("bert_small", runs, data)
    tuned = sst2("bert_finetune", runs, data, test, f"--init_from={body}")
    add("SST-2, pre-trained on its sentences", tuned, *files)
  if wanted("vectors"):
    wide = ("--config.model.dim=128", "--config.model.hidden=256")
    wide += ("--config.data.tokenizer=sentencepiece?vocab_size=8000",)
    wide += ("--config.total_steps=2400",)
    body = sst2("bert_small", runs, data, *wide, name="bert_wide")
    tuned = sst2("cls_sst2_vectors", runs, data, test, f"--init_from={body}")
    add("SST-2, from vectors pre-trained on its sentences", tuned, *files)
  if wanted("trec"):
    place = source("data", data, "trec/train")
    test = source("evals.test", data, "trec/test")
    workdir = train("cls_trec", runs, "cls_trec", place, test)
    add("TREC", workdir, "trec/train", "trec/test")
  folds = []
  for fold in range(FOLDS):
    if wanted(f"hotel{fold}"):
      place = source("data", data, f"hotel/fold{fold}_train")
      test = source("evals.test", data, f"hotel/fold{fold}_test")
      workdir = train("cls_hotel", runs, f"hotel{fold}", place, test)
      files = (f"hotel/fold{fold}_train", f"hotel/fold{fold}_test")
      folds.append(add(f"hotel reviews, fold {fold}", workdir, *files))
  if len(folds) == FOLDS:
    mean, other = np.mean(folds, axis=0)
    spread, wide = np.std(folds, axis=0, ddof=1)
    rows.append(
      f"| hotel reviews, mean | {mean:.2f} ± {spread:.2f} %"
      f" | {other:.2f} ± {wide:.2f} % | |"
    )
  head = ["| what | test accuracy | TF-IDF | time |", "|---|---|---|---|"]
  print("\n".join([*head, *rows]))


if __name__ == "__main__":
  main()
