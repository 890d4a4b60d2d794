r"""Label errors of CIFAR-10N, found without clean labels and scored with them.

Wei et al., "Learning with Noisy Labels Revisited", 2022 (arXiv:2110.12088):
10,000 images with both human and clean labels. For each set of labels it
measures: precision and recall of the errors found; precision among the n most
suspect labels, with n the number of errors, compared to cleanlab's own pipeline
with the same probabilities; and the accuracy on 2,000 clean test images after
training on the given labels and on the cleaned split, for an equal number of
steps. The model is the one that `judge` uses for images: a linear classifier on
responses to patches, which are computed once for all.

  python -m input_pipeline.fetch cifar10n
  PYTHONPATH=. python benchmarks/data/label_errors.py --data=data/cifar10n \
      --output=DIR

Features and probabilities found in --output are not recomputed. --model=conv
trains a small convolutional network on the same labels instead, in a few
minutes each.
"""

import argparse
import csv
import os
import sys
import time

import numpy as np

from input_pipeline.quality import label_models, label_noise, patches
from input_pipeline.quality.checks import label_errors
from input_pipeline.quality.out_of_fold import out_of_fold
from input_pipeline.sources import open_source, subset

BATCH = 64
STEPS = {"patches": 3125, "conv": 1250}
FILTERS = 384


def main() -> None:
  """Measures each set of labels, and prints a line for each figure."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--data", required=True, help="The folder of the images.")
  parser.add_argument("--output", required=True, help="Where all is kept.")
  parser.add_argument("--labels", default="aggre_label,worse_label")
  parser.add_argument("--repeats", type=int, default=1, help="averaged")
  parser.add_argument("--model", default="patches", choices=STEPS)
  parser.add_argument("--seeds", type=int, default=2, help="of the accuracies")
  args = parser.parse_args()
  images = args.data
  table = read_labels(images)
  uri = features(images, args.output)
  tests = open_source(f"folder:{images}", "test")
  tests = tests.read(np.arange(tests.length))["label"]
  clean = table["clean_label"]
  for name in args.labels.split(","):
    given = table[name]
    errors, probabilities = errors_of(name, given, uri, args)
    compare(name, given, clean, errors, probabilities)
    every, right = np.arange(len(given)), given == clean
    test = subset.Part("test")
    if args.model == "patches":
      test = subset.Part("all", np.arange(10_000, 12_000), tests)
    for seed in range(args.seeds):
      for which, kept, labels in (
        ("given labels", every, given),
        ("cleaned split", np.flatnonzero(~errors.wrong), given),
        ("those that are right", np.flatnonzero(right), given),
        ("clean labels", every, clean),
      ):
        train = subset.Part("train", kept, labels[kept])
        if args.model == "patches":
          train = train._replace(split="all")
        accuracy(
          f"{name}: {which} ({len(kept)})",
          args.model,
          seed,
          {"train": train, "test": test},
          uri if args.model == "patches" else f"folder:{images}",
          os.path.join(args.output, name, "trained.json"),
        )


def read_labels(images: str) -> dict[str, np.ndarray]:
  """{column: int [N]}, in the order of folder:images' split "train"."""
  path = os.path.join(images, "labels.csv")
  with open(path, encoding="utf-8", newline="") as file:
    rows = {row["path"]: row for row in csv.DictReader(file)}
  source = open_source(f"folder:{images}", "train")
  names = [
    os.path.relpath(source.name(i), images).replace(os.sep, "/")
    for i in range(source.length)
  ]
  columns = [k for k in next(iter(rows.values())) if "label" in k]
  return {c: np.array([int(rows[n][c]) for n in names]) for c in columns}


def features(images: str, output: str) -> str:
  """Returns URIs of features of the 10,000 and of the 2,000 images."""
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
  """Returns (Errors, probabilities [N, C]) of a set of labels."""
  folder = os.path.join(args.output, name)
  os.makedirs(folder, exist_ok=True)
  tables = []
  for seed in range(args.repeats):
    path = os.path.join(folder, f"probabilities_{seed}.npy")
    if not os.path.exists(path):
      start = time.perf_counter()
      config = label_models.vector_config("patches")
      config |= dict(batch_size=BATCH, total_steps=STEPS["patches"])
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
  return label_noise.find_errors(given, probabilities), probabilities


def compare(name, given, clean, errors, probabilities) -> None:
  """Prints the errors found by our method and by cleanlab."""
  from cleanlab.classification import CleanLearning
  from cleanlab.count import (
    compute_confident_joint,
    estimate_joint,
    estimate_latent,
  )

  wrong = given != clean
  pipeline = CleanLearning(
    verbose=False, find_label_issues_kwargs={"n_jobs": 1}
  )
  theirs = pipeline.find_label_issues(labels=given, pred_probs=probabilities)
  print(
    f"{name}: {wrong.mean():.2%} wrong; out of fold"
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
  counts = compute_confident_joint(given, probabilities)
  _, matrix, _ = estimate_latent(counts, given)
  for who, noise, joint in (
    ("ours", errors.noise, errors.joint),
    (
      "cleanlab",
      matrix.T,
      estimate_joint(given, probabilities, confident_joint=counts),
    ),
  ):
    print(
      f"{name}: {who}: estimates {1 - np.trace(joint):.2%} wrong; noise matrix"
      f" off by {np.abs(true - noise).mean():.4f} on average",
      flush=True,
    )


def accuracy(title, model, seed, parts, uri, path) -> None:
  """Prints the accuracy on the test images after training on `parts`."""
  from common import cli
  from train import build, loop

  cli.start_jax()
  subset.write(path, uri, parts)
  if model == "conv":
    config = label_models.image_config("conv", 32, 3)
    test = config["evals"]["held_out"]
  else:
    config, test = label_models.vector_config("patches"), {}
  config |= dict(seed=seed, batch_size=BATCH, total_steps=STEPS[model])
  config["data"]["source"] = f"subset:{path}"
  config["evals"] = {"test": {**test, "name": "classification"}}
  config["evals"]["test"]["split"] = "test"
  last = {}
  for report in loop.fit(build.run(config, None, say=lambda line: None)):
    last |= report.scalars
  print(
    f"{title}, {model}, seed {seed}: test accuracy {last['test/accuracy']:.2%}",
    flush=True,
  )


if __name__ == "__main__":
  try:
    main()
  except (OSError, ValueError) as error:
    sys.exit(f"label_errors: {error}")
