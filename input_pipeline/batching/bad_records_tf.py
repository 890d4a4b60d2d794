"""The tf.data stream of transformed rows when bad records are skipped.

tf.data drops the rows that fail and continues. Each row carries its place, so
the missing rows are known. Only the missing rows are tried again, one by one
and eagerly: this finds the reason, or returns the row if the failure came from
the machine rather than from the record.
"""

import atexit
import re
import weakref
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from input_pipeline import bad_records
from input_pipeline.bad_records import KEPT, Rows
from input_pipeline.tensorflow_cpu import import_tensorflow

# int64 [2]: the step of a row, and its place among the rows of the step.
_PLACE = "_place"

# What to do about a bad record that ends a run.
WAY_OUT = 'data.on_bad_record="skip" leaves such records out'


class Parts(NamedTuple):
  """The functions that the stream is built from; see tf_stream.py.

  read: (indices, keys) -> rows; ValueError if a row cannot be read.
  transform: tensors of one row -> tensors.
  signature: {field: TensorSpec of one row}.
  mapped: ((step) -> rows, transform, signature, step) -> dataset of rows.
  alone: (index, key) -> one row, computed eagerly; ValueError if it is bad.
  spec: {field: Leaf} of the transformed rows.
  """

  read: Callable[[np.ndarray, np.ndarray], Rows]
  transform: Callable[[dict], dict]
  signature: dict[str, Any]
  mapped: Callable[..., Any]
  alone: Callable[[int, int], Rows]
  spec: dict


class Steps(NamedTuple):
  """The rows of each step, before and after the ops.

  read: (step) -> {field: array [n, ...]}, with all fields of the signature.
  transform: tensors of one row -> tensors.
  signature: {field: TensorSpec of one row}.
  parts: the functions that these are built from.
  """

  read: Callable[[int], Rows]
  transform: Callable[[dict], dict]
  signature: dict[str, Any]
  parts: Parts


def placed(examples: Any, plan: Any, parts: Parts, tf: Any) -> Steps:
  """Returns Steps of the readable rows with their places and an end row each.

  Raises:
    ValueError: no record passes the ops.
  """
  # Each step ends with an extra row that never fails. Without it, tf.data would
  # search forever for the next row of a source whose records all fail.
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
  """Returns (first_step) -> the real rows of each step, as bad_records.padded.

  Raises:
    ValueError: from the iterator, if too many records fail.
  """
  completed = completer(examples, plan, steps)

  def batches(first_step: int) -> Iterator[Rows]:
    size = len(plan.rows(first_step)[0]) + 1
    mapped = steps.parts.mapped(
      steps.read, steps.transform, steps.signature, first_step
    )
    chunks = iterator(mapped.ignore_errors().batch(size).prefetch(2), "ops")
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
  """Returns (step, its rows that were not dropped) -> its rows, padded."""

  def completed(step: int, rows: Rows) -> Rows:
    indices, keys = plan.rows(step)
    n = len(indices)
    mine = np.searchsorted(rows[_PLACE][:, 1], n)  # all but the end row
    rows = {k: v[:mine] for k, v in rows.items()}
    return _completed(rows, indices, keys, examples, steps.parts)

  return completed


def _one_that_passes(examples: Any, parts: Parts) -> Rows:
  """Returns the first record that passes the ops, before the ops, [1, ...]."""
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
  """Returns the rows of a step that were not dropped.

  Args:
    chunks: an iterator over rows, in the order of their places.
    held: rows taken from `chunks` that belong to this step or to later ones.
    step: a step later than all that were requested before.
    n: the number of rows of the step; place n is that of the end row.
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
  """Returns all rows of a step; retries missing ones once, then counts them."""
  n = len(indices)
  found = rows.pop(_PLACE)[:, 1]
  bad = []
  again: dict[int, Rows] = {}
  for i in sorted(set(range(n)) - set(found.tolist())):
    try:
      again[i] = parts.alone(int(indices[i]), int(keys[i]))
    except ValueError as error:
      bad.append((examples.name(int(indices[i])), str(error)))
  examples.tally.add(0 if examples.planned else n, bad)
  if len(found) == n:
    return rows
  whole = bad_records.padded(n, rows, found, parts.spec)
  for i, row in again.items():
    whole[KEPT][i], whole["mask"][i] = True, 1
    for name, leaf in row.items():
      whole[name][i] = leaf
  return whole


class _Rows:
  """An iterator over a dataset that `close` ends."""

  def __init__(self, dataset: Any):
    self._rows = dataset.as_numpy_iterator()

  def __iter__(self) -> Iterator[Rows]:
    return self

  def __next__(self) -> Rows:
    return next(self._rows)

  def close(self) -> None:
    self._rows = iter(())


# A thread of tf.data that calls Python while the interpreter shuts down never
# returns, and the end of its iterator would wait for it.
_open: weakref.WeakSet[_Rows] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
  for rows in list(_open):
    rows.close()


def iterator(dataset: Any, where: str) -> Iterator[Rows]:
  """Returns the dataset's iterator, which is closed when the process ends.

  TensorFlow now computes what depends on no record, such as the conversion of
  an op's argument.

  Raises:
    ValueError: that failed; the line begins with `where`.
  """
  tf = import_tensorflow()
  try:
    rows = _Rows(dataset)
  except tf.errors.OpError as error:
    raise ValueError(f"{where}: {reason(error)}") from None
  _open.add(rows)
  return rows


def reason(error: Exception) -> str:
  """Returns TensorFlow's error message without the names of its graph nodes."""
  text = re.sub(r"\{\{.*?\}\}|\[Op:.*", "", getattr(error, "message", ""))
  lines = (text or str(error) or type(error).__name__).strip().splitlines()
  return lines[0].strip().rstrip(".")
