"""Class probabilities of examples, by models that have not seen them."""

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
  """The fold of each example, int64 [N]; each fold has its share of a class.

  The folds' sizes differ by at most one, and so do the folds' numbers of
  examples of a class.

  Raises:
    ValueError: there are fewer than two folds, or fewer examples than folds.
  """
  if folds < 2 or folds > len(labels):
    raise ValueError(
      f"folds={folds}: {len(labels)} examples can be cut into 2 to"
      f" {len(labels)} folds"
    )
  key = order.epoch_key(seed, np.array([folds])) ^ _FOLD_KEY
  places = order.permute(np.arange(len(labels)), len(labels), key)
  # Dealt one by one, class after class: what one class leaves uneven, the
  # next one evens out.
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

  A row is NaN where the example is a bad record that the config skips.

  Each fold's model is trained by train.loop from scratch on the other folds.
  Where config.evals has several entries, or one that runs several times, a
  probability is the mean of all: of views, or of moments of one training.

  Args:
    source: URI, whose field "label" is not looked at.
    split: of the source.
    labels: int [N], the labels to train on, 0 to num_classes - 1.
    num_classes: C.
    config: of a run, as in configs/; its source, splits and seed are given
      here, and each of its evals is of `probabilities`, with `ops` as needed.
    workdir: where the runs are kept while they go on; removed at the end.
    indices: int [N], the examples of the split; all of them if None.
    folds: K.
    seed: of the folds and of each training.
    say: (line) -> None; tells how far it is.

  Raises:
    ValueError: the config or the data is wrong; one line that tells how.
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
      # The labels of those held out are of no use to anyone.
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
  """The config of one fold's run."""
  import jax

  run = copy.deepcopy(dict(config))
  run["seed"] = seed
  # A batch is divided over the devices, and each has as many rows.
  devices = jax.device_count()
  run["batch_size"] = -(-run["batch_size"] // devices) * devices
  run["data"] = {**run["data"], "source": source, "split": "train"}
  run["evals"] = {
    key: {**given, "name": "probabilities", "split": "test"}
    for key, given in run["evals"].items()
  }
  return run


def _trained(config: dict[str, Any], workdir: str) -> np.ndarray:
  """Trains a run and gives its mean predictions, [n, C]."""
  from common import cli
  from common.errors import UserError
  from train import build, loop

  cli.start_jax()
  try:
    run = build.run(config, workdir, say=lambda line: None)
    run.checkpoints.close()  # What is trained is not kept.
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
