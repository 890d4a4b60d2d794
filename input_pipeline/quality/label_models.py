"""Which of our models judges the labels of a source, and what it reads.

Images go to a small convolutional network as they are. Texts become hashed
counts of n-grams, and rows of a table become numbers, once, in files beside
the report; both go to a multilayer perceptron.
"""

import itertools
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from input_pipeline.source import Source

_READ = 1024  # examples at once
_TEXT_FEATURES = 2**13
_MOST_CATEGORIES = 50  # of a column; the rarer ones are one
_MODELS = {"image": ("conv", "resnet"), "x": ("linear", "mlp")}


class Reading(NamedTuple):
  """What a model is trained with.

  kind: "image", "text" or "table".
  source: URI.
  split: of it.
  config: of a run; see out_of_fold.
  """

  kind: str
  source: str
  split: str
  config: dict[str, Any]


def reading(
  source: Source,
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
  """The Reading of a labelled source.

  Args:
    source: opened.
    uri: of it.
    split: of it.
    label: the field that is the label.
    folder: where features are written, unless the examples are images.
    model: "conv" or "resnet" for images, "linear" or "mlp" for the others;
      by default "conv" and "mlp".
    epochs: by default 10, or 30 where the examples are no images.
    text_key: the field that is a text.
    image_size: to which images are resized.

  Raises:
    ValueError: the source has nothing to tell labels by, or no such model.
  """
  sample = source.read(np.zeros(1, np.int64))
  image = sample.get("image")
  kind = "image" if image is not None else "x"
  model = model or _MODELS[kind][0 if image is not None else 1]
  if model not in _MODELS[kind]:
    raise ValueError(
      f"model {model!r}; valid for this source: {', '.join(_MODELS[kind])}"
    )
  if image is not None:
    raw = image.dtype.kind == "f"
    config = image_config(model, image_size, 3 if raw else _channels(image))
    if raw:  # Ready for a model as it is.
      config["data"]["ops"] = config["evals"]["held_out"]["ops"] = ""
      del config["evals"]["mirrored"]
    found = Reading("image", uri, split, config)
  else:
    is_text = text_key in sample and isinstance(sample[text_key][0], str)
    kind = "text" if is_text else "table"
    columns = [text_key] if is_text else sorted(set(sample) - {label})
    if not columns:
      raise ValueError(f"{uri}: has no field beside {label!r} to judge it by")
    if is_text:
      _write_text(source, text_key, folder)
    else:
      _write_table(source, columns, folder)
    config = vector_config(model, 1e-3)
    found = Reading(kind, f"npy:{folder}", "all", config)
  rows = source.length
  epochs = epochs or (10 if kind == "image" else 30)
  batch_size = _batch_size(rows)
  found.config["batch_size"] = batch_size
  found.config["total_steps"] = max(1, epochs * rows // batch_size)
  return found


def image_config(model: str, image_size: int, channels: int) -> dict[str, Any]:
  """A small network, cropped and mirrored images, and both views to judge."""
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
    data=dict(ops=f"{ready}|{crop}|flip|scale(-1, 1)"),
    evals=dict(
      held_out=dict(ops=f"{ready}|scale(-1, 1)"),
      mirrored=dict(ops=f"{ready}|flip(1.0)|scale(-1, 1)"),
    ),
  )


def vector_config(model: str, weight_decay: float) -> dict[str, Any]:
  """Logistic regression or a perceptron on the field "x"."""
  return dict(
    task=dict(name="image_classification", inkey="x"),
    model=dict(name="mlp", hidden=() if model == "linear" else (64,)),
    learner=dict(name="supervised", ema=0.95),
    optimizer=dict(
      name="adamw", lr=2e-3, schedule="one_cycle", weight_decay=weight_decay
    ),
    data={},
    evals=dict(held_out={}),
  )


def rows(
  source: Source, fields: list[str], indices: np.ndarray | None = None
) -> Iterator[dict[str, np.ndarray]]:
  """Some fields of the examples, in order, a bounded number at a time."""
  if indices is None:
    indices = np.arange(source.length)
  for start in range(0, len(indices), _READ):
    found = source.read(indices[start : start + _READ])
    yield {field: found[field] for field in fields}


def _batch_size(rows: int) -> int:
  """A power of two: at least 50 batches an epoch, if there are so many rows."""
  return int(min(64, max(16, 2 ** int(np.log2(max(1, rows / 50))))))


def picture(image: np.ndarray | bytes) -> np.ndarray:
  """An image of a source as uint8 [h, w, c], to be shown."""
  if isinstance(image, bytes):
    from input_pipeline import ops

    return (
      ops.import_tensorflow()
      .io.decode_image(image, 3, expand_animations=False)
      .numpy()
    )
  if image.dtype.kind == "f":
    low, high = float(image.min()), float(image.max())
    image = (image - low) * (255 / max(high - low, 1e-12))
  return image.astype(np.uint8)


def _channels(image: np.ndarray) -> int:
  return 3 if image.dtype == object else image.shape[-1]


def _write_text(source: Source, text_key: str, folder: str) -> None:
  """x.npy: counts of hashed n-grams, weighted and normalized; float16.

  N-grams of words, one or two, and of the characters within a word, two to
  four: the latter are what tells Chinese texts apart, which have no spaces.
  """
  from scipy.sparse import hstack
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

  def counted():
    for found in rows(source, [text_key]):
      texts = [str(text) for text in found[text_key]]
      yield hstack([words.transform(texts), characters.transform(texts)])

  weights = TfidfTransformer(sublinear_tf=True)
  everything = list(counted())
  from scipy.sparse import vstack

  weights.fit(vstack(everything))
  x = _create(folder, source.length, _TEXT_FEATURES, np.float16)
  start = 0
  for part in everything:
    x[start : start + part.shape[0]] = weights.transform(part).toarray() * 8
    start += part.shape[0]
  x.flush()


def _write_table(source: Source, columns: list[str], folder: str) -> None:
  """x.npy: each column as numbers, standardized, or as one of categories."""
  parts = []
  for column in columns:
    chunks = rows(source, [column])
    values = list(itertools.chain.from_iterable(c[column] for c in chunks))
    array = np.array(values) if _numbers(values) else None
    if array is not None and array.dtype.kind in "biuf":
      parts.append(_standardized(array.reshape(len(values), -1)))
    else:
      parts.append(_one_of(values))
  width = sum(part.shape[1] for part in parts)
  x = _create(folder, source.length, width, np.float32)
  np.concatenate(parts, 1, out=x)
  x.flush()


def _numbers(values: list) -> bool:
  return (
    all(isinstance(v, (int, float, np.number, np.ndarray)) for v in values)
    and len({np.shape(v) for v in values}) == 1
  )


def _standardized(column: np.ndarray) -> np.ndarray:
  """float32 [N, F]: what is not finite becomes the mean, and is told of."""
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
  """float32 [N, C]: 1 in the column of the value, or in that of the rare."""
  texts = np.array([str(v) for v in values])
  found, inverse, counts = np.unique(
    texts, return_inverse=True, return_counts=True
  )
  # By count, then by name: a tie must not be decided by chance.
  kept = np.lexsort((np.arange(len(found)), -counts))[:_MOST_CATEGORIES]
  place = np.full(len(found), len(kept))
  place[kept] = np.arange(len(kept))
  table = np.eye(len(kept) + 1, dtype=np.float32)[place[inverse]]
  return table[:, : len(kept) + (len(found) > len(kept))]


def _create(folder: str, rows: int, width: int, dtype) -> np.ndarray:
  os.makedirs(folder, exist_ok=True)
  path = os.path.join(folder, "x.npy")
  return np.lib.format.open_memmap(path, "w+", dtype, (rows, width))
