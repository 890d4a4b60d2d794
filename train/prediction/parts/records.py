"""The predictions of a finished run on new data, record by record."""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from common.errors import UserError
from common.leaf import arrays
from input_pipeline import bad_records, ops
from input_pipeline.batching import components, pipeline
from input_pipeline.batching.unlabeled import Unlabeled
from train import assembly, build, prediction, run_data, sharding, trained
from train.prediction import Context, Piece

# The default batch is the run's, but at most this.
_MOST_ROWS = 256
_OWN = ("mask", "index")  # leaves that every batch has


class Wanted(NamedTuple):
  """What to predict.

  where: the flag that names the data, for errors.
  data: settings that replace those of the run, with "source" and "split".
  batch: the number of rows at a time; None for the run's.
  top: the number of alternatives to write.
  """

  where: str
  data: Mapping[str, Any]
  batch: int | None = None
  top: int = 1


class Predicted(NamedTuple):
  """Predictions that have not been computed yet.

  rows: their number, at least that of the records.
  records: yields them, each a dict, in the order of the data.
  """

  rows: int
  records: Iterator[dict[str, Any]]


def predicted(
  found: trained.Trained,
  workdir: str,
  wanted: Wanted,
  say: Callable[[str], None],
  advance: Callable[[int], None] = lambda rows: None,
) -> Predicted:
  """Returns the predictions of a run on data that need no labels.

  Args:
    found: the run.
    workdir: its folder, which has the tokenizer and the fitted statistics.
    wanted: the data.
    say: (line) -> None; reports skipped records and notes.
    advance: (number of rows) -> None; called when rows are done.

  Raises:
    UserError: the run predicts nothing that can be written, or the data do not
      suit it; `records` raises it for a bad record.
  """
  parts = found.parts
  config, spec = parts.config, parts.data.spec
  name = config["task"]["name"]
  kind = prediction.kind_of(parts.task, name)
  read, abstract = leaves_read(parts.task.predict[kind], found.variables, spec)
  names = parts.data.class_names
  context = Context(abstract, spec, names, wanted.top)
  try:
    prediction.renderer(kind, context)
  except ValueError as error:
    raise UserError(f"--workdir: {prediction.no_labels(name)}") from error
  given = reading(found, workdir, wanted, kind, read, say, advance)
  context = context._replace(
    class_names=names or tuple(given.data.class_names or ()),
    settings=given.evaluator,
    unscaled=given.data.unscaled,
  )
  render = prediction.renderer(kind, context)
  return Predicted(given.data.num_examples, render(given.pieces))


class Reading(NamedTuple):
  """Pieces that have not been computed yet.

  data: of the records.
  evaluator: the settings of the run's evaluator.
  pieces: yields the predictions, in the order of the data.
  """

  data: pipeline.Data
  evaluator: Mapping[str, Any]
  pieces: Iterator[Piece]


def reading(
  found: trained.Trained,
  workdir: str,
  wanted: Wanted,
  kind: str,
  read: list[str],
  say: Callable[[str], None],
  advance: Callable[[int], None],
) -> Reading:
  """Returns the values of the prediction `kind`, which reads the leaves `read`.

  The other arguments and errors are those of `predicted`.
  """
  parts = found.parts
  config, spec = parts.config, parts.data.spec
  names = parts.data.class_names
  evaluator, settings = _settings(config, wanted.data)
  labels = {k: v for k, v in spec.items() if k not in (*read, *_OWN)}
  data = run_data.read(
    pipeline.evaluation,
    config,
    wanted.where,
    settings,
    parts.mesh,
    workdir,
    _batch(wanted.batch or min(parts.data.batch_size, _MOST_ROWS), parts.mesh),
    Unlabeled(labels, parts.data.num_classes, names),
  )
  _check(data.spec, spec, read, wanted.where)
  if data.note:
    say(data.note)
  predict = jax.jit(parts.task.predict[kind])

  def pieces() -> Iterator[Piece]:
    rng = jax.random.key(0)
    stream = bad_records.telling(data, 0, say)
    placed = run_data.placed(stream, wanted.where, parts.mesh, data.spec)
    for batch in placed:
      inputs = {leaf: batch[leaf] for leaf in read}
      values = predict(found.variables, inputs, rng)
      own = (batch["index"], batch["mask"])
      values, index_B, mask = jax.device_get((values, *own))
      piece = _in_order(data, values, index_B, mask)
      yield piece
      advance(len(piece.records))

  return Reading(data, evaluator, pieces())


def _in_order(data: pipeline.Data, values, index_B, mask) -> Piece:
  """The real rows of a batch, in the order of the data."""
  rows = np.flatnonzero(index_B >= 0)
  rows = rows[np.argsort(index_B[rows], kind="stable")]
  places = index_B[rows]
  return Piece(
    jax.tree.map(lambda x: x[rows], values),
    mask[rows],
    [data.record(int(place)) for place in places],
    functools.partial(data.texts, places) if data.texts else dict,
  )


def leaves_read(predict, variables, spec) -> tuple[list[str], Any]:
  """Returns the leaves that a prediction reads, and its abstract value."""
  read: set[str] = set()

  class Watched(Mapping):
    """A batch that notes which of its leaves are read."""

    def __init__(self, batch):
      self.batch = batch

    def __getitem__(self, leaf):
      found = self.batch[leaf]
      read.add(leaf)
      return found

    def __contains__(self, leaf):
      return leaf in self.batch

    def __iter__(self):
      return iter(self.batch)

    def __len__(self):
      return len(self.batch)

  batch = arrays(spec, 1, jax.ShapeDtypeStruct)
  abstract = jax.eval_shape(
    lambda v, b, rng: predict(v, Watched(b), rng),
    variables,
    batch,
    jax.random.key(0),
  )
  return sorted(read), abstract


def _settings(config, given: Mapping[str, Any]) -> tuple[dict, dict]:
  """Returns the settings of the run's evaluator, and of the data to predict.

  The preprocessing is that of the evaluation which chooses the best checkpoint,
  else of the first one. If it has no ops of its own, those of training apply,
  without what is random in them.
  """
  shared = build.shared_settings(config)
  evaluator: dict[str, Any] = {}
  own: dict[str, Any] = {}
  metrics = (
    config["checkpoint"].get("keep_best"),
    (config["early_stopping"] or {}).get("metric"),
  )
  chosen = [str(m).partition("/")[0] for m in metrics if m]
  keys = [k for k in chosen if k in config["evals"]]
  keys += assembly.eval_keys(config)
  if keys:
    _, evaluator, own = build.eval_section(config, keys[0])
  settings = {**components.inherited(shared, own), **given}
  settings.pop("mixture", None)
  if "ops" not in own and "ops" not in given and settings.get("ops"):
    settings["ops"] = ops.without_random(settings["ops"])
  return evaluator, settings


def _batch(rows: int, mesh) -> int:
  """The rows of a batch, rounded up to a multiple of the mesh's parts."""
  parts = sharding.batch_parts(mesh)
  return -(-rows // parts) * parts


def _check(found, spec, read, where: str) -> None:
  """Raises UserError unless the rows have what the model reads."""
  for leaf in read:
    wanted = list(spec[leaf].shape)
    if leaf not in found:
      raise UserError(
        f"{where}: the model reads {leaf!r}, and the data have"
        f" {', '.join(sorted(found))}"
      )
    shape = list(found[leaf].shape)
    if shape != wanted:
      raise UserError(
        f"{where}: {leaf!r} has the shape {shape}, and the model was"
        f" trained on {wanted}; --ops sets another preprocessing"
      )
