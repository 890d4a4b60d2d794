"""The predictions of a finished run on new data, record by record."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from common.errors import UserError
from common.leaf import arrays
from input_pipeline import bad_records
from input_pipeline.batching import pipeline
from input_pipeline.batching.unlabeled import Unlabeled
from input_pipeline.sources import Source, open_source
from train import prediction, run_data, trained
from train.prediction import Original, Piece
from train.prediction.parts import originals, preparation, single
from train.prediction.parts.preparation import Prepared, Wanted


class Predicted(NamedTuple):
  """Predictions that have not been computed yet.

  rows: their number, at least that of the records.
  records: yields them, each a dict, in the order of the data.
  rendering: see prediction.Rendering.
  """

  rows: int
  records: Iterator[dict[str, Any]]
  rendering: prediction.Rendering


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
  ready = preparation.prepared(found, wanted)
  if ready.note:
    say(ready.note)
  if ready.rendering.whole:
    rows, records = single.each(
      found, ready, wanted, _source(ready, wanted), say, advance
    )
    return Predicted(rows, records, ready.rendering)
  given = reading(found, workdir, wanted, ready, say, advance)
  data = given.data
  context = ready.context._replace(
    class_names=found.parts.data.class_names or tuple(data.class_names or ()),
    unscaled=data.unscaled,
  )
  render = prediction.rendering(ready.kind, context).render
  return Predicted(data.num_examples, render(given.pieces), ready.rendering)


class Reading(NamedTuple):
  """Predictions as arrays, which have not been computed yet.

  data: of the records.
  pieces: yields them, in the order of the data.
  """

  data: pipeline.Data
  pieces: Iterator[Piece]


def reading(
  found: trained.Trained,
  workdir: str,
  wanted: Wanted,
  ready: Prepared,
  say: Callable[[str], None],
  advance: Callable[[int], None],
) -> Reading:
  """Returns the values of a prediction; the rest is as in `predicted`."""
  parts = found.parts
  names = parts.data.class_names
  data = run_data.read(
    pipeline.evaluation,
    parts.config,
    wanted.where,
    ready.settings,
    parts.mesh,
    workdir,
    preparation.rows_of_batch(found, wanted),
    Unlabeled(ready.labels, parts.data.num_classes, names, tuple(ready.absent)),
  )
  predict = jax.jit(ready.rendering.views(parts.task.predict[ready.kind]))

  def fits(spec) -> bool:
    batch = arrays({k: spec[k] for k in ready.read}, 1, jax.ShapeDtypeStruct)
    try:
      jax.eval_shape(predict, found.variables, batch, jax.random.key(0))
    except (UserError, ValueError, TypeError):
      return False
    return True

  preparation.check_leaves(data.spec, ready, wanted, fits)
  if data.note:
    say(data.note)
  source = _source(ready, wanted) if ready.rendering.placed else None

  def pieces() -> Iterator[Piece]:
    rng = jax.random.key(0)
    stream = bad_records.telling(data, 0, say, every=True)
    placed = run_data.placed(stream, wanted.where, parts.mesh, data.spec)
    for batch in placed:
      inputs = {leaf: batch[leaf] for leaf in ready.read}
      values = predict(found.variables, inputs, rng)
      own = (batch["index"], batch["mask"], batch.get("place"))
      values, (index_B, mask, place) = jax.device_get((values, own))
      piece = _in_order(data, values, index_B, mask, place, source, ready)
      yield piece
      advance(len(piece.records))

  return Reading(data, pieces())


def _source(ready: Prepared, wanted: Wanted) -> Source:
  """The records before the operations."""
  keys = ("on_bad_record", "max_bad_share", "max_record_bytes")
  given = {k: ready.settings[k] for k in keys if k in ready.settings}
  try:
    policy = bad_records.policy(**given)._replace(labels=False)
    return open_source(
      ready.settings["source"], ready.settings["split"], policy
    )
  except ValueError as error:
    raise UserError(f"{wanted.where}: {error}") from error


def _in_order(
  data: pipeline.Data,
  values,
  index_B,
  mask,
  place,
  source: Source | None,
  ready: Prepared,
) -> Piece:
  """The real rows of a batch, in the order of the data."""
  rows = np.flatnonzero(index_B >= 0)
  rows = rows[np.argsort(index_B[rows], kind="stable")]
  places = index_B[rows]

  def original(row: int) -> Original:
    return originals.of_value(
      source.read(places[row : row + 1])[ready.picture][0]
    )

  return Piece(
    jax.tree.map(lambda x: x[rows], values),
    mask[rows],
    [data.record(int(place)) for place in places],
    functools.partial(data.texts, places) if data.texts else dict,
    None if place is None else place[rows],
    None if source is None else original,
  )
