"""Label errors of CIFAR-10N, found without the clean labels, counted with them.

Wei et al., "Learning with Noisy Labels Revisited", 2022 (arXiv:2110.12088):
10,000 images whose people's labels are known beside the clean ones. For each
set of labels: precision and recall of what is found; precision among as many
most suspect as there are errors, beside cleanlab's own pipeline with the same
probabilities; and the accuracy on 2,000 clean test images after training on
the labels as they are, and on the cleaned split, for as many steps. The model
is the one that `judge` takes for images: a linear classifier on responses to
patches, which are computed once for all.

  python benchmarks/label_errors.py --data=DIR --output=DIR

What --output holds already is not computed again.
"""

import argparse
import csv
import os
import sys
import time

import numpy as np
import prepare_cifar10

from input_pipeline import source_subset
from input_pipeline.quality import label_errors, label_models, patches
from input_pipeline.quality.out_of_fold import out_of_fold
from input_pipeline.source import open_source

EPOCHS = 30
BATCH = 64
FILTERS = 384


def main() -> None:
  """Measures each set of labels, and prints a line for each figure."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--data", required=True, help="Where the zips are.")
  parser.add_argument("--output", required=True, help="Where all is kept.")
  parser.add_argument("--labels", default="aggre_label,worse_label")
  parser.add_argument("--repeats", type=int, default=1, help="averaged")
  parser.add_argument("--seeds", type=int, default=2, help="of the accuracies")
  args = parser.parse_args()
  images = os.path.join(args.output, "images")
  for split in prepare_cifar10.ARCHIVES:
    if not os.path.isdir(os.path.join(images, split)):
      archive, _ = prepare_cifar10.ARCHIVES[split]
      path = os.path.join(args.data, archive)
      prepare_cifar10.unpack(path, split, images)
  table = read_labels(args.data, images)
  uri = features(images, args.output)
  tests = open_source(f"folder:{images}", "test")
  tests = tests.read(np.arange(tests.length))["label"]
  clean = table["clean_label"]
  for name in args.labels.split(","):
    given = table[name]
    errors, probabilities = errors_of(name, given, uri, args)
    compare(name, given, clean, errors, probabilities)
    every, right = np.arange(len(given)), given == clean
    for seed in range(args.seeds):
      for which, kept, labels in (
        ("given", every, given),
        ("cleaned", np.flatnonzero(~errors.wrong), given),
        ("only_right", np.flatnonzero(right), given),
        ("clean_label", every, clean),
      ):
        folder = os.path.join(args.output, name)
        accuracy(name, which, seed, kept, labels, uri, tests, folder)


def read_labels(data: str, images: str) -> dict[str, np.ndarray]:
  """{column: int [N]}, in the order of folder:images' split "train"."""
  path = os.path.join(data, "train_first10000_labels.csv")
  with open(path, encoding="utf-8", newline="") as file:
    rows = {row["path"]: row for row in csv.DictReader(file)}
  source = open_source(f"folder:{images}", "train")
  names = [
    os.path.relpath(source.name(i), images).replace(os.sep, "/")
    for i in range(source.length)
  ]
  columns = [
    k for k in next(iter(rows.values())) if k.endswith(("label", "label1"))
  ]
  return {c: np.array([int(rows[n][c]) for n in names]) for c in columns}


def features(images: str, output: str) -> str:
  """URI of the features of the 10,000 images, and of the 2,000 after them."""
  folder = os.path.join(output, "features")
  if not os.path.exists(os.path.join(folder, "x.npy")):
    start = time.perf_counter()
    partial = os.path.join(output, "features_partial")
    patches.write_patches(
      source=f"folder:{images}",
      split="train+test",
      indices=np.arange(12_000),
      ops="decode(3)|resize(32)",
      filters=FILTERS,
      folder=partial,
    )
    os.rename(partial, folder)
    print(f"features in {time.perf_counter() - start:.0f} s", flush=True)
  return f"npy:{folder}"


def errors_of(name: str, given: np.ndarray, uri: str, args):
  """(Errors, probabilities [N, C]) of a set of labels."""
  folder = os.path.join(args.output, name)
  os.makedirs(folder, exist_ok=True)
  tables = []
  for seed in range(args.repeats):
    path = os.path.join(folder, f"probabilities_{seed}.npy")
    if not os.path.exists(path):
      start = time.perf_counter()
      config = label_models.vector_config("patches")
      config |= dict(batch_size=BATCH, total_steps=steps_of(len(given)))
      table = out_of_fold(
        source=uri,
        split="all",
        labels=given,
        num_classes=10,
        config=config,
        workdir=folder,
        seed=seed,
      )
      np.save(path, table.astype(np.float32))
      seconds = time.perf_counter() - start
      print(f"{name}: cross-validated in {seconds:.0f} s", flush=True)
    tables.append(np.load(path, allow_pickle=False).astype(np.float64))
  probabilities = np.mean(tables, axis=0)
  return label_errors.find_errors(given, probabilities), probabilities


def steps_of(examples: int) -> int:
  """The steps of a training: as many for all labels as for the cleaned."""
  return EPOCHS * examples // BATCH


def compare(name, given, clean, errors, probabilities) -> None:
  """Prints what was found, ours and cleanlab's."""
  from cleanlab.classification import CleanLearning

  wrong = given != clean
  pipeline = CleanLearning(verbose=False)
  theirs = pipeline.find_label_issues(labels=given, pred_probs=probabilities)
  print(
    f"{name}: {wrong.mean():.2%} wrong; estimated"
    f" {1 - np.trace(errors.joint):.2%}; out of fold"
    f" {(probabilities.argmax(1) == clean).mean():.2%} of clean labels told"
  )
  ours = label_errors.ranking(errors)
  found = {
    "ours": (errors.wrong, ours),
    "cleanlab": (
      theirs["is_label_issue"].to_numpy(),
      np.argsort(theirs["label_quality"].to_numpy(), kind="stable"),
    ),
  }
  for who, (mask, order) in found.items():
    print(
      f"{name}: {who}: found {mask.sum()}, precision"
      f" {wrong[mask].mean():.4f}, recall {mask[wrong].mean():.4f}, precision"
      f" at {wrong.sum()} {wrong[order[: wrong.sum()]].mean():.4f}",
      flush=True,
    )
  true = np.zeros_like(errors.noise)
  np.add.at(true, (clean, given), 1)
  true /= true.sum(1, keepdims=True)
  off = np.abs(true - errors.noise).mean()
  print(f"{name}: noise matrix off by {off:.4f} on average", flush=True)


def accuracy(name, which, seed, kept, labels, uri, tests, output) -> None:
  """Prints the accuracy on the test images after a training on some labels."""
  from train import build, cli, loop

  cli.start_jax()
  path = os.path.join(output, f"{which}_{seed}.json")
  test = np.arange(len(labels), len(labels) + len(tests))
  parts = {
    "train": source_subset.Part("all", kept, labels[kept]),
    "test": source_subset.Part("all", test, tests),
  }
  source_subset.write(path, uri, parts)
  config = label_models.vector_config("patches")
  config |= dict(batch_size=BATCH, total_steps=steps_of(len(labels)))
  config |= dict(seed=seed)
  config["data"] = dict(source=f"subset:{path}")
  config["evals"] = {"test": dict(name="classification", split="test")}
  last = {}
  for report in loop.fit(build.run(config, None, say=lambda line: None)):
    last |= report.scalars
  print(
    f"{name}: seed {seed}, {which} ({len(kept)}): test accuracy"
    f" {last['test/accuracy']:.2%}",
    flush=True,
  )


if __name__ == "__main__":
  try:
    main()
  except (OSError, ValueError) as error:
    sys.exit(f"label_errors: {error}")
