"""Out-of-fold class probabilities: each by a model trained without it."""

import copy
import os
import shutil
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from input_pipeline import order
from input_pipeline.sources import subset

# Part of the meaning of a seed: never change it.
_FOLD_KEY = np.uint64(0xF01D5)


def assign_folds(labels: np.ndarray, folds: int, seed: int) -> np.ndarray:
  """Returns the fold of each example, int64 [N], stratified by class.

  The sizes of the folds differ by at most one, and so do their numbers of
  examples of each class.

  Raises:
    ValueError: there are fewer than two folds, or fewer examples than folds.
  """
  if folds < 2 or folds > len(labels):
    raise ValueError(
      f"folds={folds}: {len(labels)} examples can be divided into 2 to"
      f" {len(labels)} folds"
    )
  key = order.epoch_key(seed, np.array([folds])) ^ _FOLD_KEY
  places = order.permute(np.arange(len(labels)), len(labels), key)
  # The examples are dealt to the folds in turn, class after class, which keeps
  # the sizes equal.
  dealt = places[np.argsort(labels[places], kind="stable")]
  fold = np.empty(len(labels), np.int64)
  fold[dealt] = np.arange(len(labels)) % folds
  return fold


def out_of_fold(
  *,
  source: str,
  split: str,
  labels: np.ndarray,
  num_classes: int,
  config: Mapping[str, Any],
  workdir: str,
  indices: np.ndarray | None = None,
  folds: int = 5,
  seed: int = 0,
  say: Callable[[str], None] = print,
) -> np.ndarray:
  """Stratified cross-validation: float64 [N, num_classes], rows sum to 1.

  The row of a bad record that the config skips is NaN.

  The model of each fold is trained by train.loop from scratch on the other
  folds. If config.evals has several entries, or one that runs several times,
  the probabilities are the means of all, such as of views of an image.

  Args:
    source: the URI of a source, whose field "label" is not used.
    split: of the source.
    labels: int [N], the labels to train on, from 0 to num_classes - 1.
    num_classes: C.
    config: of a run, as in configs/. Its source, splits and seed are set here,
      and so is the name of each of its evals, `probabilities`.
    workdir: the folder of the runs, which are removed at the end.
    indices: int [N], the examples of the split; None for all.
    folds: the number of folds.
    seed: of the folds and of each training.
    say: called with lines of progress.

  Raises:
    ValueError: the config or the data is wrong; one line.
  """
  labels = np.asarray(labels, np.int32)
  if indices is None:
    indices = np.arange(len(labels))
  fold_N = assign_folds(labels, folds, seed)
  table_NC = np.zeros((len(labels), num_classes))
  for fold in range(folds):
    held_out = np.flatnonzero(fold_N == fold)
    seen = np.flatnonzero(fold_N != fold)
    folder = os.path.join(workdir, f"fold_{fold}")
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, "examples.json")
    parts = {
      "train": subset.Part(split, indices[seen], labels[seen]),
      # The held-out labels are not used.
      "test": subset.Part(split, indices[held_out], np.zeros_like(held_out)),
    }
    names = tuple(str(c) for c in range(num_classes))
    subset.write(path, source, parts, names)
    run = _settings(config, f"subset:{path}", seed * folds + fold)
    table_NC[held_out] = _trained(run, os.path.join(folder, "run"))
    shutil.rmtree(folder)
    say(f"fold {fold + 1} of {folds}: {len(held_out)} examples predicted")
  total_N1 = table_NC.sum(1, keepdims=True)
  return table_NC / np.where(total_N1 > 0, total_N1, np.nan)


def _settings(config: Mapping, source: str, seed: int) -> dict[str, Any]:
  """The config of the run of one fold."""
  import jax

  run = copy.deepcopy(dict(config))
  run["seed"] = seed
  # Each device has the same number of rows of a batch.
  devices = jax.device_count()
  run["batch_size"] = -(-run["batch_size"] // devices) * devices
  run["data"] = {**run["data"], "source": source, "split": "train"}
  run["evals"] = {
    key: {**given, "name": "probabilities", "split": "test"}
    for key, given in run["evals"].items()
  }
  return run


def _trained(config: dict[str, Any], workdir: str) -> np.ndarray:
  """Trains a run, and returns its mean predictions, [n, C]."""
  from common import cli
  from common.errors import UserError
  from train import build, loop

  cli.start_jax()
  try:
    run = build.run(config, workdir, say=lambda line: None)
    run.checkpoints.close()  # The trained model is not kept.
    for _ in loop.fit(run._replace(checkpoints=None)):
      pass
  except UserError as error:
    raise ValueError(str(error)) from error
  found = [
    np.load(os.path.join(workdir, key, name), allow_pickle=False)
    for key in sorted(config["evals"])
    for name in sorted(os.listdir(os.path.join(workdir, key)))
  ]
  return np.mean(found, axis=0, dtype=np.float64)
