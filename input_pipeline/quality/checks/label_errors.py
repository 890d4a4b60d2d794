"""Labels that are probably wrong, and a split of the data without them.

They are estimated from cross-validated predictions of a model; see
label_noise.py.
"""

import csv
import os
import tempfile
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from input_pipeline.bad_records import Policy, first_readable, surviving
from input_pipeline.quality import label_models, label_noise
from input_pipeline.quality.finding import Finding
from input_pipeline.quality.label_noise import Errors
from input_pipeline.reporting import page
from input_pipeline.sources import Source, open_source, subset

ORDER = 120
NEEDS = "label"
COSTLY = True

_CHECK = "label_errors"
_MOST_CLASSES = 1000
_READ = 1024  # examples at once
_MOST_DRAWN = 30  # classes of a heatmap


class Labels(NamedTuple):
  """The labels of the readable examples of a source.

  indices: int64 [N], the places of the examples in the split.
  given: int32 [N], the labels.
  names: the names of the classes.
  """

  indices: np.ndarray
  given: np.ndarray
  names: tuple[str, ...]


def label_errors(
  *,
  uri: str,
  split: str,
  label: str,
  output: str,
  folds: int = 5,
  repeats: int = 1,
  seed: int = 0,
  model: str | None = None,
  epochs: int | None = None,
  text_key: str = "text",
  image_size: int = 32,
  warn_share: float = 0.05,
  fail_share: float = 0.25,
  shown: int = 32,
  say: Callable[[str], None] = print,
) -> list[Finding]:
  """Finds labels that are probably wrong.

  Writes to `output`: label_errors.csv, every example with its given and its
  suggested label, the most suspect first; clean.json, a `subset:` source of the
  other examples, for training; and probabilities.npy, the out-of-fold
  probabilities, float32 [N, C].

  Args:
    uri: of the source.
    split: of the source.
    label: the field of the label, which holds integers or names.
    output: the folder to write to.
    folds: the number of folds of the cross-validation.
    repeats: the number of cross-validations whose probabilities are averaged.
    seed: of folds and trainings.
    model: see label_models.reading; so are `epochs`, `text_key`, `image_size`.
    epochs: of each training.
    text_key: the field that is a text.
    image_size: to which images are resized.
    warn_share: the estimated share of wrong labels above which the verdict
      warns. The estimate is too large if the model is wrong where it is most
      certain.
    fail_share: the estimated share above which the verdict fails.
    shown: the number of most suspect examples in the report.
    say: called with lines of progress.

  Raises:
    ValueError: the source or a setting is wrong; one line that names it.
  """
  label_noise.import_cleanlab()
  from input_pipeline.quality.out_of_fold import out_of_fold

  if repeats < 1:
    raise ValueError(f"label_errors: repeats={repeats} is less than 1")
  source = open_source(uri, split, Policy(skip=True))
  labels = read_labels(source, label, uri)
  os.makedirs(output, exist_ok=True)
  with tempfile.TemporaryDirectory(dir=output, prefix="training_") as folder:
    read = label_models.reading(
      source,
      labels.indices,
      uri=uri,
      split=split,
      label=label,
      folder=os.path.join(folder, "features"),
      model=model,
      epochs=epochs,
      text_key=text_key,
      image_size=image_size,
    )
    tables = [
      out_of_fold(
        source=read.source,
        split=read.split,
        labels=labels.given[read.places],
        num_classes=len(labels.names),
        config=read.config,
        workdir=folder,
        indices=read.indices,
        folds=folds,
        seed=seed + repeat,
        say=lambda line: say(f"{_CHECK}: {line}"),
      )
      for repeat in range(repeats)
    ]
  probabilities = np.mean(tables, axis=0)
  known = np.isfinite(
    probabilities[:, 0]
  )  # Rows of examples that cannot be decoded are NaN.
  probabilities, places = probabilities[known], read.places[known]
  labels = labels._replace(
    indices=labels.indices[places], given=labels.given[places]
  )
  path = os.path.join(output, "probabilities.npy")
  np.save(path, probabilities.astype(np.float32))
  errors = label_noise.find_errors(labels.given, probabilities)
  write_errors(os.path.join(output, "label_errors.csv"), source, labels, errors)
  believed = labels.indices[~errors.wrong]
  write_clean(os.path.join(output, "clean.json"), uri, split, believed)
  share = errors.share()
  verdict = "ok" if share <= warn_share else "warn"
  verdict = "fail" if share > fail_share else verdict
  line, figures = _summary(labels, errors, probabilities, read.model, source)
  parts = _noise_parts(labels, errors)
  parts += _suspects(source, labels, errors, read.kind, shown)
  return [Finding(_CHECK, verdict, line, figures, parts)]


def read_labels(source: Source, label: str, uri: str) -> Labels:
  """The labels of every example.

  Raises:
    ValueError: there is no such field, a label is missing, or the values are
      not classes.
  """
  sample = first_readable(source, Policy(skip=True))
  if label not in sample:
    raise ValueError(
      f"{uri}: no field {label!r}; there are: {', '.join(sorted(sample))}"
    )
  values, indices = [], []
  for start in range(0, source.length, _READ):
    asked = np.arange(start, min(start + _READ, source.length))
    rows, found, _ = surviving(source.read, asked)
    if len(found):
      values.append(rows[label])
      indices.append(asked[found])
  values, indices = np.concatenate(values), np.concatenate(indices)
  if values.ndim != 1 or values.dtype.kind not in "biuO":
    raise ValueError(
      f"{uri}: {label!r} is {values.dtype} of shape {values.shape[1:]}, but"
      " labels must be integers or names"
    )
  if values.dtype == object:
    for i, value in enumerate(values):
      if not isinstance(value, (str, int)) or value == "":
        name = source.name(int(indices[i]))
        raise ValueError(f"{name}: {label}={value!r} is not a label")
    values = np.array([str(value) for value in values])
  whole = values.dtype.kind in "iu" and label == "label"
  if whole and source.num_classes and values.min() >= 0:
    names = source.class_names or [str(c) for c in range(source.num_classes)]
    given = values
  else:
    found, given = np.unique(values, return_inverse=True)
    names = [str(name) for name in found]
  present = len(np.unique(given))
  if present < 2 or len(names) > min(_MOST_CLASSES, len(given)):
    raise ValueError(
      f"{uri}: {label!r} has {present} values in {len(given)} examples, but"
      f" labels must have 2 to {_MOST_CLASSES} classes"
    )
  return Labels(indices, given.astype(np.int32), tuple(names))


def write_errors(
  path: str, source: Source, labels: Labels, errors: Errors
) -> None:
  """Writes label_errors.csv: all examples, the most suspect first."""
  # File names may not be valid UTF-8.
  kind = {"encoding": "utf-8", "errors": "backslashreplace", "newline": ""}
  with open(path, "w", **kind) as file:
    writer = csv.writer(file)
    writer.writerow(
      ["index", "name", "given", "suggested", "quality", "wrong", "cleanlab"]
    )
    for i in ranking(errors):
      writer.writerow(
        [
          labels.indices[i],
          source.name(int(labels.indices[i])),
          labels.names[labels.given[i]],
          labels.names[errors.suggested[i]],
          f"{errors.quality[i]:.6f}",
          int(errors.wrong[i]),
          int(errors.confident[i]),
        ]
      )


def ranking(errors: Errors) -> np.ndarray:
  """Indices of the labels, the most suspect first."""
  return np.argsort(errors.quality, kind="stable")


def write_clean(path: str, uri: str, split: str, believed: np.ndarray) -> None:
  """Writes clean.json: a `subset:` source whose "train" has the other examples.

  It includes the validation and test splits of the source unchanged.
  """
  parts = {"train": subset.Part(split, believed)}
  if all(each.strip().startswith("train") for each in split.split("+")):
    for name in ("validation", "test"):
      try:
        note = open_source(uri, name).note
      except ValueError:
        continue
      if "stands in" not in note:
        parts[name] = subset.Part(name)
  subset.write(path, uri, parts)


def _summary(labels, errors, probabilities, model: str, source):
  """(line, figures) of the result."""
  rows, wrong = len(labels.given), int(errors.wrong.sum())
  share = errors.share()
  agreement = float((probabilities.argmax(1) == labels.given).mean())
  line = (
    f"{wrong:,} of {rows:,} labels are probably wrong"
    f" (estimated share {share:.1%}; the model {model!r} agrees with"
    f" {agreement:.1%} of the held-out labels)"
  )
  figures = {
    "examples": rows,
    "left_out": source.length - rows,
    "suspects": wrong,
    "suspects_of_cleanlab": int(errors.confident.sum()),
    "estimated_share": share,
    "model": model,
    "agreement": agreement,
    "classes": list(labels.names),
    "noise_matrix": errors.noise.round(6).tolist(),
    "joint": errors.joint.round(8).tolist(),
  }
  return line, figures


def _noise_parts(labels: Labels, errors: Errors) -> list:
  """A plot of the noise matrix, and the most frequent confusions."""
  from input_pipeline.reporting import plots

  parts = []
  if len(labels.names) <= _MOST_DRAWN:
    picture = plots.heatmap(
      errors.noise,
      labels.names,
      labels.names,
      "Estimated noise matrix",
      x="given label",
      y="true label",
    )
    caption = "The probability of each given label for each true label."
    parts.append(page.Figure(picture, caption))
  off = errors.joint * (1 - np.eye(len(errors.joint)))
  order = np.argsort(-off, axis=None, kind="stable")[:20]
  rows = []
  for given, true in zip(*np.unravel_index(order, off.shape), strict=True):
    if off[given, true] <= 0:
      break
    count = (errors.wrong & (labels.given == given)) & (
      errors.suggested == true
    )
    rows.append(
      (
        labels.names[true],
        labels.names[given],
        round(float(off[given, true]) * len(labels.given), 1),
        int(count.sum()),
      )
    )
  columns = ("true label", "given label", "estimated examples", "suspects")
  parts.append(page.Table(columns, rows, "The most frequent confusions."))
  return parts


def _suspects(source, labels, errors, kind: str, shown: int) -> list:
  """The most suspect examples, as images, texts or rows."""
  worst = [i for i in ranking(errors)[:shown] if errors.wrong[i]]
  if not worst:
    return []
  captions = [
    f"given {labels.names[labels.given[i]]}\n"
    f"suggested {labels.names[errors.suggested[i]]}"
    for i in worst
  ]
  title = f"The {len(worst)} most suspect labels"
  places = labels.indices[worst]
  examples = source.read(places)
  if kind == "image":
    from input_pipeline.reporting import plots

    images = [label_models.picture(image) for image in examples["image"]]
    return [page.Figure(plots.image_grid(images, captions), title)]
  items = []
  for row, (place, line) in enumerate(zip(places, captions, strict=True)):
    text = "\n".join(f"{k}: {v[row]}" for k, v in examples.items())
    items.append(f"{source.name(int(place))}\n{line}\n\n{text}")
  return [page.Examples(title, items)]
