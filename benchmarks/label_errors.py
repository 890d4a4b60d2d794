"""Label errors of CIFAR-10N, found without the clean labels, counted with them.

Wei et al., "Learning with Noisy Labels Revisited", 2022 (arXiv:2110.12088):
10,000 images whose people's labels are known beside the clean ones. For each
set of labels: precision and recall of what is found; precision among as many
most suspect as there are errors, beside cleanlab's own pipeline with the same
probabilities; and the accuracy on 2,000 clean test images after training on
the labels as they are, and on the cleaned split, for as many steps.

  XLA_FLAGS=--xla_force_host_platform_device_count=2 python \
    benchmarks/label_errors.py --data=DIR --output=DIR

What --output holds already is not computed again.
"""

import argparse
import csv
import json
import os
import sys
import time

import numpy as np
import prepare_cifar10

from input_pipeline import source_subset
from input_pipeline.quality import label_errors, label_models
from input_pipeline.source import open_source

STEPS = 1250


def main() -> None:
  """Measures each set of labels, and prints a line for each figure."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--data", required=True, help="Where the zips are.")
  parser.add_argument("--output", required=True, help="Where all is kept.")
  parser.add_argument("--labels", default="aggre_label,worse_label")
  parser.add_argument("--seeds", type=int, default=2, help="of the accuracies")
  args = parser.parse_args()
  images = os.path.join(args.output, "images")
  for split in prepare_cifar10.ARCHIVES:
    if not os.path.isdir(os.path.join(images, split)):
      archive, _ = prepare_cifar10.ARCHIVES[split]
      path = os.path.join(args.data, archive)
      prepare_cifar10.unpack(path, split, images)
  table = read_labels(args.data, images)
  for name in args.labels.split(","):
    found = errors_of(name, table[name], images, args.output)
    compare(name, table[name], table["clean_label"], *found)
  for seed in range(args.seeds):
    for name in args.labels.split(","):
      for which in ("noisy", "clean", "true"):
        accuracy(name, which, seed, args.output, table, images)


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


def errors_of(name: str, given: np.ndarray, images: str, output: str):
  """(Errors, probabilities [N, C]) of a set of labels."""
  folder = os.path.join(output, name)
  os.makedirs(folder, exist_ok=True)
  noisy = os.path.join(folder, "noisy.json")
  uri = f"folder:{images}"
  parts = {
    "train": source_subset.Part("train", np.arange(len(given)), given),
    "test": source_subset.Part("test"),
  }
  source_subset.write(noisy, uri, parts)
  path = os.path.join(folder, "probabilities.npy")
  if not os.path.exists(path):
    start = time.perf_counter()
    label_errors.label_errors(
      uri=f"subset:{noisy}", split="train", label="label", output=folder
    )
    print(f"{name}: judged in {time.perf_counter() - start:.0f} s", flush=True)
  probabilities = np.load(path, allow_pickle=False).astype(np.float64)
  errors = label_errors.find_errors(given, probabilities)
  clean = os.path.join(folder, "clean.json")
  believed = np.flatnonzero(~errors.wrong)
  label_errors.write_clean(clean, f"subset:{noisy}", "train", believed)
  return errors, probabilities


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


def accuracy(name, which, seed, output, table, images) -> None:
  """Prints the accuracy on the test images after a training."""
  from train import build, cli, loop

  folder = os.path.join(output, name)
  path = os.path.join(folder, f"accuracy_{which}_{seed}.json")
  source = f"subset:{os.path.join(folder, which)}.json"
  if which == "true":  # once for all sets of labels
    path = os.path.join(output, f"accuracy_true_{seed}.json")
    source = f"folder:{images}"
  if not os.path.exists(path):
    cli.start_jax()
    config = label_models.image_config("conv", 32, 3)
    config |= dict(seed=seed, total_steps=STEPS, batch_size=64)
    config["data"] |= dict(source=source, split="train")
    test = config["evals"]["held_out"]
    config["evals"] = {
      "test": {**test, "name": "classification", "split": "test"}
    }
    last = {}
    for report in loop.fit(build.run(config, None, say=lambda line: None)):
      last |= report.scalars
    with open(path, "w", encoding="utf-8") as file:
      json.dump({k: v for k, v in last.items() if k.startswith("test/")}, file)
  with open(path, encoding="utf-8") as file:
    found = json.load(file)["test/accuracy"]
  told = {
    "noisy": "all labels as they are",
    "clean": "the cleaned split",
    "true": "all clean labels",
  }
  print(
    f"{name}: seed {seed}, {told[which]}: test accuracy {found:.2%}", flush=True
  )


if __name__ == "__main__":
  try:
    main()
  except (OSError, ValueError) as error:
    sys.exit(f"label_errors: {error}")
