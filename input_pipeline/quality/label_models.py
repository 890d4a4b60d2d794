"""The models that predict labels for label_errors, and their features.

Images become responses to patches, texts hashed counts of n-grams, and rows of
a table numbers. The features are computed once and without the labels, and a
linear classifier or a multilayer perceptron is trained on them. A convolutional
network can be trained on the images themselves, which takes many times as long.
"""

import itertools
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from input_pipeline.quality import patches
from input_pipeline.reading import pictures
from input_pipeline.sources import Source

_READ = 1024  # examples at once
_TEXT_FEATURES = 2**13
_MOST_CATEGORIES = 50  # of a column; rarer ones are joined into one
_FILTERS = 384
# kind -> models, the default first.
_MODELS = {
  "image": ("patches", "conv", "resnet"),
  "raw": ("conv", "resnet"),
  "text": ("linear", "mlp"),
  "table": ("mlp", "linear"),
}
# The least number of steps, so that models of small sets are trained.
_LEAST_STEPS = 400
_TEXT_EPOCHS = 5  # More epochs memorize rare n-grams.
_EPOCHS = {"patches": 20, "conv": 10, "resnet": 10, "linear": 20, "mlp": 10}


class Reading(NamedTuple):
  """The data and the config of a model.

  kind: "image", "text" or "table".
  model: the name of the model.
  source: the URI of a source.
  split: of the source.
  indices: int64 [n], the examples of the split.
  places: int64 [n], their positions among the requested examples.
  config: of a run; see out_of_fold.
  """

  kind: str
  model: str
  source: str
  split: str
  indices: np.ndarray
  places: np.ndarray
  config: dict[str, Any]


def reading(
  source: Source,
  indices: np.ndarray,
  *,
  uri: str,
  split: str,
  label: str,
  folder: str,
  model: str | None = None,
  epochs: int | None = None,
  text_key: str = "text",
  image_size: int = 32,
) -> Reading:
  """Returns the Reading of a labelled source.

  Args:
    source: the opened source.
    indices: int64 [N], the examples that can be read.
    uri: of the source.
    split: of the source.
    label: the field of the label.
    folder: the folder to write features to.
    model: "patches" (linear), "conv" or "resnet" for images, "linear" or "mlp"
      for texts and tables. Default: "patches" for images, "linear" for texts
      and "mlp" for tables.
    epochs: of a training. Default: 20; 10 for "mlp", "conv" and "resnet"; 5 for
      texts. Small sets are trained for at least 400 steps.
    text_key: the field of the text.
    image_size: the side to which images are resized, in pixels.

  Raises:
    ValueError: the source has no field except the label, or the model is
      unknown.
  """
  kind, model = _kind(source.read(indices[:1]), model, text_key, label, uri)
  every = np.arange(len(indices))
  if kind in ("image", "raw") and model != "patches":
    image = source.read(indices[:1])["image"]
    config = image_config(model, image_size, _channels(image))
    if kind == "raw":  # Floats need no ops.
      config["data"]["ops"] = config["evals"]["held_out"]["ops"] = ""
      del config["evals"]["mirrored"]
    found = Reading("image", model, uri, split, indices, every, config)
  else:
    if kind == "image":
      known = patches.write_patches(
        source=uri,
        split=split,
        indices=indices,
        ops=f"decode(3)|resize({image_size})",
        filters=_FILTERS,
        folder=folder,
      )
      every = np.flatnonzero(known)
    elif kind == "text":
      _write_text(source, indices, text_key, folder)
    else:
      columns = sorted(set(source.read(indices[:1])) - {label})
      _write_table(source, indices, columns, folder)
    config = vector_config(model)
    if kind == "table" and model == "linear":
      config["optimizer"]["lr"] = 2e-2  # There are few features.
    found = Reading(kind, model, f"npy:{folder}", "all", every, every, config)
  rows = len(every)
  epochs = epochs or (_TEXT_EPOCHS if kind == "text" else _EPOCHS[model])
  batch_size = _batch_size(rows)
  found.config["batch_size"] = batch_size
  steps = max(_LEAST_STEPS, epochs * rows // batch_size)
  found.config["total_steps"] = steps
  return found


def _kind(sample, model, text_key, label, uri) -> tuple[str, str]:
  """Returns the kind of the examples and the name of their model."""
  if "image" in sample:
    kind = "raw" if sample["image"].dtype.kind == "f" else "image"
  else:
    text = text_key in sample and isinstance(sample[text_key][0], str)
    kind = "text" if text else "table"
  if set(sample) <= {label}:
    raise ValueError(f"{uri} has no field except {label!r} to predict it from")
  model = model or _MODELS[kind][0]
  if model not in _MODELS[kind]:
    raise ValueError(
      f"label_errors: model={model!r} is unknown; valid for this source: "
      f"{', '.join(_MODELS[kind])}"
    )
  return kind, model


def image_config(model: str, image_size: int, channels: int) -> dict[str, Any]:
  """A small network on augmented images, which predicts for two views."""
  ready = f"decode({channels})|resize({image_size})"
  models = {
    "conv": dict(
      name="conv", variant="cifar", features=(32, 64, 128), batchnorm=True
    ),
    "resnet": dict(name="resnet", depth=18, stem="cifar", width=16),
  }
  crop = f"random_crop({image_size}, pad={max(1, image_size // 8)})"
  return dict(
    task=dict(name="image_classification", label_smoothing=0.1),
    model=models[model],
    learner=dict(name="supervised", ema=0.99),
    optimizer=dict(
      name="adamw", lr=2e-3, schedule="one_cycle", weight_decay=0.05
    ),
    data=dict(ops=f"{ready}|{crop}|flip|scale(-1, 1)", on_bad_record="skip"),
    evals=dict(
      held_out=dict(ops=f"{ready}|scale(-1, 1)"),
      mirrored=dict(ops=f"{ready}|flip(1.0)|scale(-1, 1)"),
    ),
  )


def vector_config(model: str) -> dict[str, Any]:
  """Logistic regression or a multilayer perceptron on the field "x".

  The weights are averaged and training ends early, before the model fits the
  wrong labels. On the "worst" labels of CIFAR-10N the precision at the number
  of wrong labels is 0.735 (benchmarks/data/label_errors.py); scikit-learn's
  LogisticRegression on the same features and folds gives SKLEARN.
  """
  return dict(
    task=dict(name="image_classification", inkey="x"),
    model=dict(name="mlp", hidden=(64,) if model == "mlp" else ()),
    learner=dict(name="supervised", ema=0.95),
    optimizer=dict(
      name="adamw", lr=2e-3, schedule="one_cycle", weight_decay=1e-3
    ),
    data={},
    evals=dict(held_out={}),
  )


def rows(
  source: Source, fields: list[str], indices: np.ndarray
) -> Iterator[dict[str, np.ndarray]]:
  """Yields fields of examples in order, in chunks of bounded size."""
  for start in range(0, len(indices), _READ):
    found = source.read(indices[start : start + _READ])
    yield {field: found[field] for field in fields}


def _batch_size(rows: int) -> int:
  """A power of two from 16 to 64, with at least 50 batches per epoch."""
  return int(min(64, max(16, 2 ** int(np.log2(max(1, rows / 50))))))


def picture(image: np.ndarray | bytes) -> np.ndarray:
  """An image of a source as uint8 [h, w, c] for display."""
  if isinstance(image, bytes):
    return pictures.decode(image, 3)
  if image.dtype.kind == "f":
    low, high = float(image.min()), float(image.max())
    image = (image - low) * (255 / max(high - low, 1e-12))
  return image.astype(np.uint8)


def _channels(image: np.ndarray) -> int:
  return 3 if image.dtype == object else image.shape[-1]


def _write_text(
  source: Source, indices: np.ndarray, text_key: str, folder: str
) -> None:
  """Writes x.npy: TF-IDF weights of hashed n-grams, normalized; float16.

  The n-grams consist of one or two words, and of one to four characters in a
  word, which Chinese text needs, as it has no spaces.
  """
  from scipy.sparse import hstack, vstack
  from sklearn.feature_extraction.text import (
    HashingVectorizer,
    TfidfTransformer,
  )

  half = _TEXT_FEATURES // 2
  shared = dict(n_features=half, alternate_sign=False, norm=None, binary=True)
  words = HashingVectorizer(ngram_range=(1, 2), **shared)
  characters = HashingVectorizer(
    analyzer="char_wb", ngram_range=(1, 4), **shared
  )

  counts = []
  for found in rows(source, [text_key], indices):
    texts = [str(text) for text in found[text_key]]
    both = [words.transform(texts), characters.transform(texts)]
    counts.append(hstack(both, "csr", np.float32))
  weights = TfidfTransformer().fit(vstack(counts))
  x = _create(folder, len(indices), _TEXT_FEATURES, np.float16)
  start = 0
  for part in counts:
    # Rows have length 1. Multiplied by 8, their features are about as large as
    # those of a table.
    x[start : start + part.shape[0]] = weights.transform(part).toarray() * 8
    start += part.shape[0]
  x.flush()


def _write_table(
  source: Source, indices: np.ndarray, columns: list[str], folder: str
) -> None:
  """Writes x.npy: standardized numeric columns and one-hot categories."""
  parts = []
  for column in columns:
    chunks = rows(source, [column], indices)
    values = list(itertools.chain.from_iterable(c[column] for c in chunks))
    array = np.array(values) if _numbers(values) else None
    if array is not None and array.dtype.kind in "biuf":
      parts.append(_standardized(array.reshape(len(values), -1)))
    else:
      parts.append(_one_of(values))
  width = sum(part.shape[1] for part in parts)
  x = _create(folder, len(indices), width, np.float32)
  np.concatenate(parts, 1, out=x)
  x.flush()


def _numbers(values: list) -> bool:
  return (
    all(isinstance(v, (int, float, np.number, np.ndarray)) for v in values)
    and len({np.shape(v) for v in values}) == 1
  )


def _standardized(column: np.ndarray) -> np.ndarray:
  """float32 [N, F]; values that are not finite become the mean and a flag."""
  column = column.astype(np.float64)
  known = np.isfinite(column)
  column = np.where(known, column, np.nan)
  with np.errstate(invalid="ignore"):
    count = np.maximum(known.sum(0), 1)
    mean = np.nansum(column, 0) / count
    spread = np.sqrt(np.nansum((column - mean) ** 2, 0) / count)
  scaled = np.where(known, (column - mean) / np.where(spread, spread, 1), 0)
  scaled = np.clip(scaled, -10, 10)
  missing = (~known)[:, ~known.all(0)]
  return np.concatenate([scaled, missing], 1).astype(np.float32)


def _one_of(values: list) -> np.ndarray:
  """float32 [N, C]: one-hot categories, with one column for rare values."""
  texts = np.array([str(v) for v in values])
  found, inverse, counts = np.unique(
    texts, return_inverse=True, return_counts=True
  )
  # By count, then by name, so that ties are decided deterministically.
  kept = np.lexsort((np.arange(len(found)), -counts))[:_MOST_CATEGORIES]
  place = np.full(len(found), len(kept))
  place[kept] = np.arange(len(kept))
  table = np.eye(len(kept) + 1, dtype=np.float32)[place[inverse]]
  return table[:, : len(kept) + (len(found) > len(kept))]


def _create(folder: str, rows: int, width: int, dtype) -> np.ndarray:
  os.makedirs(folder, exist_ok=True)
  path = os.path.join(folder, "x.npy")
  return np.lib.format.open_memmap(path, "w+", dtype, (rows, width))
