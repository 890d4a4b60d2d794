"""One picture at a time: pictures of any size, and requests to a server."""

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from common.errors import UserError
from input_pipeline import bad_records, ops
from input_pipeline.batching import bad_records_tf
from input_pipeline.sources import Source
from input_pipeline.tensorflow_cpu import import_tensorflow
from train import prediction, trained
from train.prediction import Piece
from train.prediction.parts import originals, preparation
from train.prediction.parts.preparation import Prepared, Wanted


class Single:
  """Predicts one picture, without the pipeline of batches.

  Args:
    found: the run.
    ready: what it predicts.
  """

  def __init__(self, found: trained.Trained, ready: Prepared):
    self.found, self.ready = found, ready
    task, string = found.parts.task, ready.settings.get("ops", "")
    context = ops.Context(found.parts.data.num_classes, None)
    try:
      self._ops = ops.compile(string, context) if string else None
    except ValueError as error:
      raise UserError(f"--ops: {error}") from error
    self._predict = jax.jit(ready.rendering.views(task.predict[ready.kind]))

  def compile(self) -> None:
    """Compiles the program for pictures of the size of training."""
    shape = self.ready.context.spec[self.ready.picture].shape
    with contextlib.suppress(ValueError):  # of pictures that must be larger
      self.record("", np.full(shape, 128, np.uint8))

  def asked(self, top: int, options: Mapping[str, Any]) -> "Single":
    """The same with other settings; it shares the compiled programs."""
    context = self.ready.context._replace(top=top, options=options)
    rendering = prediction.rendering(self.ready.kind, context)
    found = copy.copy(self)
    found.ready = self.ready._replace(context=context, rendering=rendering)
    return found

  def record(self, name: str, value: Any) -> dict[str, Any]:
    """The record of a picture: the bytes of a file, or an array.

    Raises:
      ValueError: it cannot be decoded, or the operations do not suit it; one
        line, without the name.
    """
    leaves = self._leaves(value)
    ready = self.ready
    if ready.rendering.apply is None:
      values = self._values(leaves)
    else:
      inputs = {k: v for k, v in leaves.items() if k != ready.picture}

      def predict(image_BHWC: np.ndarray) -> np.ndarray:
        return self._values({**inputs, ready.picture: image_BHWC[0]})

      values = ready.rendering.apply(predict, leaves[ready.picture])[None]
    place = leaves.get("place")
    piece = Piece(
      values,
      np.ones(1, np.float32),
      [name],
      dict,
      None if place is None else place[None],
      lambda row: originals.of_value(value),
    )
    (record,) = ready.rendering.render(iter([piece]))
    return record

  def _leaves(self, value: Any) -> dict[str, np.ndarray]:
    """What the operations make of a picture; ValueError if they cannot."""
    tf = import_tensorflow()
    zeros = {
      k: np.zeros(v.shape, v.dtype) for k, v in self.ready.labels.items()
    }
    example = {self.ready.picture: value, **zeros}
    if self._ops is None:
      return {k: np.asarray(v) for k, v in example.items()}
    try:
      tensors = {k: tf.constant(v) for k, v in example.items()}
      made = self._ops(tensors, tf.constant([0, 0], tf.int64))
      return {k: v.numpy() for k, v in made.items()}
    except (ValueError, tf.errors.OpError) as error:
      raise ValueError(bad_records_tf.reason(error)) from None

  def _values(self, leaves: dict[str, np.ndarray]):
    """The prediction of one row, [1, ...]; ValueError if it does not fit."""
    rows = preparation.whole_batch(1, self.found.parts.mesh)
    missing = [k for k in self.ready.read if k not in leaves]
    if missing:
      raise ValueError(f"the model reads {missing[0]!r}")
    batch = {
      k: np.repeat(leaves[k][None], rows, 0)
      for k in self.ready.read
      if k not in self.ready.rendering.extra
    }
    for k, number in self.ready.rendering.extra.items():
      batch[k] = np.full((rows,), number, np.float32)
    found = self._predict(self.found.variables, batch, jax.random.key(0))
    return jax.tree.map(lambda x: x[:1], jax.device_get(found))


def each(
  found: trained.Trained,
  ready: Prepared,
  wanted: Wanted,
  source: Source,
  say: Callable[[str], None],
  advance: Callable[[int], None],
) -> tuple[int, Iterator[dict[str, Any]]]:
  """Returns (the number of pictures, their records), one after the other.

  Raises:
    UserError: from the iterator, for a bad record; see bad_records.Policy.
  """
  keys = ("on_bad_record", "max_bad_share", "max_record_bytes")
  given = {k: ready.settings[k] for k in keys if k in ready.settings}
  tally = bad_records.Tally(bad_records.policy(**given))
  predict = Single(found, ready)
  if source.note:
    say(source.note)

  def bad(name: str, error: ValueError) -> None:
    line = bad_records.error_line(name, str(error))
    if not tally.policy.skip:
      raise UserError(f"{wanted.where}: {line}; {bad_records_tf.WAY_OUT}")
    say(f"skipped {line}")
    try:
      tally.add(1, [(name, str(error))])
    except ValueError as many:
      raise UserError(f"{wanted.where}: {many}") from None

  def records() -> Iterator[dict[str, Any]]:
    for i in range(source.length):
      name = source.name(i)
      try:
        value = source.read(np.array([i]))[ready.picture][0]
        record = predict.record(name, value)
      except ValueError as error:
        bad(name, error)
      else:
        tally.add(1)
        yield record
      advance(1)
    skipped = tally.skipped()
    if skipped.count:
      say(str(skipped))
      if skipped.count == source.length:
        raise UserError(f"{wanted.where}: no record can be read")

  return source.length, records()
