"""The stream of transformed rows, prepared by the workers of a tf.data service.

Audibert et al., "tf.data service: A Case for Disaggregating ML Input Data
Processing" (SoCC 2023). The dispatcher assigns each step number to one worker,
which reads and transforms the step's rows. The batches arrive as they are
completed and are put in order here. A step is a function of its number, so a
step that was assigned to a lost worker is prepared here instead.
"""

import json
import queue
import re
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from input_pipeline.bad_records import Rows
from input_pipeline.batching.bad_records_tf import Steps, reason
from input_pipeline.tensorflow_cpu import import_tensorflow

# TensorFlow gives this name to the first Python function that a process
# registers; in a worker it is the one that reads. See data_service.py.
TOKEN = "pyfunc_0"
# The beginning of an error that concerns the worker rather than a record.
FAULT = "this worker of the data service"
_STEP = "_step"
_ENDLESS = 2**62
# The number of later steps held before a missing one is prepared here.
_WINDOW = 32
# Seconds without any batch after which the service counts as lost.
_PATIENCE = 120.0
_CONNECTING = 10.0
_ADDRESS = re.compile(r"grpc://([^/?#:]+|\[[0-9a-fA-F:]+\]):(\d+)(\?.*)?")


class Address(NamedTuple):
  """A dispatcher's address, and the longest wait for a batch in seconds."""

  host: str
  port: int
  timeout: float

  def __str__(self) -> str:
    return f"grpc://{self.host}:{self.port}"


def address(text: Any) -> Address:
  """Parses "grpc://HOST:PORT" or "grpc://HOST:PORT?timeout=SECONDS".

  Raises:
    ValueError: the text has neither form.
  """
  match = _ADDRESS.fullmatch(text) if isinstance(text, str) else None
  timeout = _PATIENCE
  if match and match[3]:
    given = re.fullmatch(r"\?timeout=(\d+(?:\.\d+)?)", match[3])
    timeout = float(given[1]) if given else 0.0
  if not match or not 0 < int(match[2]) < 2**16 or not timeout:
    raise ValueError(
      f"service {text!r} is not grpc://HOST:PORT or "
      "grpc://HOST:PORT?timeout=SECONDS"
    )
  return Address(match[1], int(match[2]), timeout)


def stream(
  service: str,
  settings: Mapping[str, Any],
  plan: Any,
  steps: Steps,
  completed: Callable[[int, Rows], Rows] | None,
  local: Callable[[int], Iterator[Rows]],
) -> Callable[[int], Iterator[Rows]]:
  """Returns (first_step) -> the real rows of each step, equal to `local`'s.

  Args:
    service: the dispatcher's address.
    settings: the arguments from which a worker builds the same `steps`.
    plan: plan.Plan.
    steps: the rows that a worker reads, and the ops.
    completed: see bad_records_tf.completer, under "skip"; else None.
    local: the stream without a service.

  Raises:
    ValueError: the address is malformed; or, from the iterator, no dispatcher
      answers, no batch arrives in time, or an example fails.
  """
  where = address(service)
  settings_json = json.dumps(settings, default=_plain)

  def batches(first_step: int) -> Iterator[Rows]:
    _connect(where)
    size = len(plan.rows(first_step)[0]) + (completed is not None)
    arrivals = _Arrivals(
      lambda: _dataset(where, settings_json, steps, completed, size, first_step)
    )
    try:
      found = _in_order(arrivals, where, first_step, size, completed, local)
      for step, (rows, came) in enumerate(found, first_step):
        yield completed(step, rows) if completed and came else rows
    finally:
      arrivals.stop()

  return batches


def _plain(value: Any) -> Any:
  """Converts what JSON cannot encode: a mixture's dicts and NumPy's numbers."""
  return (
    dict(value) if isinstance(value, Mapping) else np.asarray(value).tolist()
  )


def _connect(where: Address) -> None:
  """Raises ValueError if no dispatcher answers: TensorFlow would wait."""
  host = where.host.strip("[]")
  try:
    socket.create_connection((host, where.port), _CONNECTING).close()
  except OSError as error:
    raise ValueError(
      f"service {where}: no dispatcher answers ({error.strerror or error}); "
      "python -m input_pipeline.data_service --role=dispatcher starts one"
    ) from None


def _dataset(
  where: Address,
  settings_json: str,
  steps: Steps,
  completed: Callable | None,
  size: int,
  first_step: int,
):
  """Returns the dataset of {field: [n, ...], _STEP: step}, as completed."""
  tf = import_tensorflow()
  service = tf.data.experimental.service
  types = [spec.dtype for spec in steps.signature.values()]

  @tf.autograph.experimental.do_not_convert
  def batch_of(step):
    found = tf.raw_ops.PyFuncStateless(
      input=[tf.constant(settings_json), step], token=TOKEN, Tout=types
    )
    for leaf, spec in zip(found, steps.signature.values(), strict=True):
      leaf.set_shape([None, *spec.shape])
    leaves = dict(zip(steps.signature, found, strict=True))
    rows = tf.data.Dataset.from_tensor_slices(leaves).map(
      steps.transform, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )
    if completed is not None:
      rows = rows.ignore_errors()
    return rows.batch(size).map(lambda batch: {**batch, _STEP: step})

  found = tf.data.Dataset.range(first_step, _ENDLESS).interleave(
    batch_of, cycle_length=2, num_parallel_calls=2, deterministic=True
  )
  return found.apply(
    service.distribute(service.ShardingPolicy.DYNAMIC, str(where))
  )


class _Arrivals:
  """Receives batches in a thread, since TensorFlow's wait has no timeout."""

  def __init__(self, make: Callable[[], Any]) -> None:
    self._queue: queue.Queue = queue.Queue(2)
    self._stopped = threading.Event()
    self._thread = threading.Thread(target=self._run, args=(make,), daemon=True)
    self._thread.start()

  def next(self, timeout: float) -> Rows | Exception:
    """Returns the next batch or final error; queue.Empty after the timeout."""
    return self._queue.get(timeout=timeout)

  def stop(self) -> None:
    """Stops receiving; the dispatcher's job ends with the iterator."""
    self._stopped.set()
    self._thread.join(1.0)

  def _run(self, make: Callable[[], Any]) -> None:
    try:
      for rows in make().as_numpy_iterator():
        if not self._put(rows):
          return
    except Exception as error:  # The consuming thread raises it.
      self._put(error)

  def _put(self, found: Rows | Exception) -> bool:
    while not self._stopped.is_set():
      try:
        self._queue.put(found, timeout=0.1)
      except queue.Full:
        continue
      return True
    return False


def _in_order(
  arrivals: _Arrivals,
  where: Address,
  step: int,
  size: int,
  completed: Callable | None,
  local: Callable[[int], Iterator[Rows]],
) -> Iterator[tuple[Rows, bool]]:
  """Yields the rows of each step from `step` on, and if a worker made them."""
  held: dict[int, Rows] = {}
  failed: Exception | None = None
  alone = _Alone(local)
  tried = 0
  while True:
    while step not in held and len(held) < _WINDOW and failed is None:
      try:
        found = arrivals.next(where.timeout)
      except queue.Empty:
        raise ValueError(
          f"service {where}: no batch for {where.timeout:g} seconds; its "
          "workers are lost, or slower than ?timeout=SECONDS allows"
        ) from None
      if isinstance(found, Exception):
        failed = found
        continue
      at = int(found.pop(_STEP))
      whole = completed is not None or len(next(iter(found.values()))) == size
      if at >= step and whole:
        held[at] = found
    if step in held:
      yield held.pop(step), True
    else:
      # If a step fails, the local stream names the record.
      if failed is not None and (_is_fault(failed) or tried >= _WINDOW):
        raise ValueError(f"service {where}: {_line(failed)}") from None
      tried += failed is not None
      yield alone.rows(step), False
    step += 1


class _Alone:
  """Prepares steps on this host; consecutive steps share one stream."""

  def __init__(self, local: Callable[[int], Iterator[Rows]]) -> None:
    self._local = local
    self._next = -1
    self._stream: Iterator[Rows] = iter(())

  def rows(self, step: int) -> Rows:
    if step != self._next:
      self._stream = self._local(step)
    self._next = step + 1
    return next(self._stream)


def _is_fault(error: Exception) -> bool:
  return FAULT in str(error)


def _line(error: Exception) -> str:
  """Returns the error in one line, without TensorFlow's and Python's traces."""
  text = str(getattr(error, "message", error))
  place = text.find(FAULT)
  return text[place:].splitlines()[0] if place >= 0 else reason(error)
