"""The stream of real rows through ops, by tf.data, with bad ones left out.

tf.data drops the rows that fail, and goes on; each row carries its place, so
that what is missing is known. Only the missing ones are tried again, alone and
eagerly: that gives the reason, and the row itself where it was the machine
that failed rather than the record.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from input_pipeline import bad_records
from input_pipeline.bad_records import KEPT, Rows

# int64 [2]: the step of a row, and its place among the rows of the step.
_PLACE = "_place"


class Parts(NamedTuple):
  """What the stream is made of; see pipeline_tf.py.

  read: (indices, keys) -> rows; ValueError where one cannot be read.
  transform: tensors of one row -> tensors.
  signature: {field: TensorSpec of one row}.
  mapped: ((step) -> rows, transform, signature, step) -> dataset of rows.
  alone: (index, key) -> one row, computed eagerly; ValueError if it is bad.
  spec: {field: (shape, dtype)} of the transformed rows.
  """

  read: Callable[[np.ndarray, np.ndarray], Rows]
  transform: Callable[[dict], dict]
  signature: dict[str, Any]
  mapped: Callable[..., Any]
  alone: Callable[[int, int], Rows]
  spec: dict


class Steps(NamedTuple):
  """The rows of each step, before and after the ops.

  read: (step) -> {field: array [n, ...]}, all those of the signature.
  transform: tensors of one row -> tensors.
  signature: {field: TensorSpec of one row}.
  parts: what they are made of.
  """

  read: Callable[[int], Rows]
  transform: Callable[[dict], dict]
  signature: dict[str, Any]
  parts: Parts


def placed(examples: Any, plan: Any, parts: Parts, tf: Any) -> Steps:
  """The rows that can be read, each with its place, and one that ends a step.

  Raises:
    ValueError: no record passes the ops.
  """
  # One row more, after those of each step, that never fails. Without it a
  # source whose records all fail would be searched for its next row for ever.
  end = _one_that_passes(examples, parts)

  def read(step: int) -> Rows:
    indices, keys = plan.rows(step)
    n = len(indices)
    rows, found, _ = bad_records.surviving(
      lambda at: parts.read(indices[at], keys[at]), np.arange(n)
    )
    places = np.stack([np.full(len(found) + 1, step), [*found, n]], axis=1)
    rows = {k: np.concatenate([rows[k], end[k]]) for k in end} if rows else end
    return {**rows, _PLACE: places.astype(np.int64)}

  @tf.autograph.experimental.do_not_convert
  def transform(row):
    row = dict(row)
    place = row.pop(_PLACE)
    return {**parts.transform(row), _PLACE: place}

  signature = {**parts.signature, _PLACE: tf.TensorSpec([2], tf.int64)}
  return Steps(read, transform, signature, parts)


def stream(
  examples: Any, plan: Any, steps: Steps
) -> Callable[[int], Iterator[Rows]]:
  """(first_step) -> the real rows of each step, as bad_records.padded.

  Raises:
    ValueError: from the iterator, too many records fail.
  """
  completed = completer(examples, plan, steps)

  def batches(first_step: int) -> Iterator[Rows]:
    size = len(plan.rows(first_step)[0]) + 1
    mapped = steps.parts.mapped(
      steps.read, steps.transform, steps.signature, first_step
    )
    chunks = mapped.ignore_errors().batch(size).prefetch(2).as_numpy_iterator()
    held: list[Rows] = []
    step = first_step
    while True:
      n = len(plan.rows(step)[0])
      yield completed(step, _of_step(chunks, held, step, n))
      step += 1

  return batches


def completer(
  examples: Any, plan: Any, steps: Steps
) -> Callable[[int, Rows], Rows]:
  """(step, its rows that were not dropped) -> all of its rows, padded."""

  def completed(step: int, rows: Rows) -> Rows:
    indices, keys = plan.rows(step)
    n = len(indices)
    mine = np.searchsorted(rows[_PLACE][:, 1], n)  # all but the end
    rows = {k: v[:mine] for k, v in rows.items()}
    return _completed(rows, indices, keys, examples, steps.parts)

  return completed


def _one_that_passes(examples: Any, parts: Parts) -> Rows:
  """The first record that passes the ops, as it is read, [1, ...]."""
  first = None
  for place in bad_records.spread(examples.length):
    try:
      parts.alone(int(place), 0)
    except ValueError as error:
      first = first or error
      continue
    return parts.read(np.array([place]), np.zeros(1, np.int64))
  raise ValueError(f"no record passes the ops: {first}")


def _of_step(
  chunks: Iterator[Rows], held: list[Rows], step: int, n: int
) -> Rows:
  """The rows of a step that were not dropped.

  Args:
    chunks: of rows, in the order of their places.
    held: what was taken from it and belongs to this step and later ones.
    step: later than any that was asked for.
    n: how many rows the step has; its last place is that of the end.
  """
  while not held or tuple(held[-1][_PLACE][-1]) < (step, n):
    chunk = next(chunks, None)
    if chunk is None:
      break
    held.append(chunk)
  if not held:
    return {_PLACE: np.zeros((0, 2), np.int64)}
  whole = held[0]
  if len(held) > 1:
    whole = {k: np.concatenate([chunk[k] for chunk in held]) for k in whole}
  until = np.searchsorted(whole[_PLACE][:, 0], step, side="right")
  held[:] = [{k: v[until:] for k, v in whole.items()}]
  if not len(held[0][_PLACE]):
    held.clear()
  return {k: v[:until] for k, v in whole.items()}


def _completed(
  rows: Rows, indices: np.ndarray, keys: np.ndarray, examples: Any, parts: Parts
) -> Rows:
  """The rows of a step, those that are missing tried once more, and told."""
  n = len(indices)
  found = rows.pop(_PLACE)[:, 1]
  bad = []
  again: dict[int, Rows] = {}
  for i in sorted(set(range(n)) - set(found.tolist())):
    try:
      again[i] = parts.alone(int(indices[i]), int(keys[i]))
    except ValueError as error:
      bad.append((examples.name(int(indices[i])), str(error)))
  examples.tally.add(n, bad)
  if len(found) == n:
    return rows
  whole = bad_records.padded(n, rows, found, parts.spec)
  for i, row in again.items():
    whole[KEPT][i], whole["mask"][i] = True, 1
    for name, leaf in row.items():
      whole[name][i] = leaf
  return whole


def reason(error: Exception) -> str:
  """What TensorFlow says, without the names of its nodes."""
  text = re.sub(r"\{\{.*?\}\}|\[Op:.*", "", getattr(error, "message", ""))
  lines = (text or str(error) or type(error).__name__).strip().splitlines()
  return lines[0].strip().rstrip(".")
