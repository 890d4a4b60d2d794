"""Prefetches host batches and places them on the devices as global arrays."""

import functools
import queue
import threading
from collections.abc import Callable, Iterator

import jax
import numpy as np

ShardingOf = Callable[[str | None], jax.sharding.Sharding]


def prefetch(
  batches: Iterator[dict[str, np.ndarray]],
  sharding_of: ShardingOf,
  depth: int = 2,
) -> Iterator[dict[str, jax.Array]]:
  """Places batches on the devices ahead of their use, in a thread of its own.

  Args:
    batches: this host's rows of each global batch; only the thread reads and
      closes it.
    sharding_of: (name of a leaf) -> its sharding; (None) -> that of the rows.
    depth: the number of batches placed ahead of their use.

  Yields:
    The batches in order, each leaf a global array.

  Raises:
    Any exception raised while reading, at the position of the failed batch.
  """
  ready: queue.Queue = queue.Queue()
  free = threading.Semaphore(depth)
  stop = threading.Event()
  thread = threading.Thread(
    target=_fill,
    args=(iter(batches), sharding_of, ready, free, stop),
    name="prefetch",
    daemon=True,
  )
  thread.start()
  try:
    while True:
      batch, error = ready.get()
      if error is not None:
        raise error
      if batch is None:
        return
      free.release()
      # Popped so that only the consumer keeps the batch alive.
      yield batch.pop()
  finally:
    stop.set()
    free.release()
    # The garbage collector may run in the thread, which cannot join itself.
    if threading.current_thread() is not thread:
      # With a timeout: a read that hangs must not keep the run from ending.
      thread.join(timeout=5)


def place(
  batch: dict[str, np.ndarray], sharding_of: ShardingOf
) -> dict[str, jax.Array]:
  """Returns one host batch as global arrays.

  The host holds complete rows: those of its `shares`, concatenated. If the
  devices of several hosts hold parts of the same rows, each of these hosts
  reads the rows and places its own parts.
  """
  held, count = shares(sharding_of(None))

  def placed(name, leaf):
    size = len(leaf) // len(held)

    def part(index):
      start = held.index((index[0].start or 0) // size) * size
      return leaf[(slice(start, start + size), *index[1:])]

    shape = (size * count, *leaf.shape[1:])
    sharding = sharding_of(name)
    return jax.make_array_from_callback(shape, sharding, part)

  return {name: placed(name, leaf) for name, leaf in batch.items()}


@functools.lru_cache(maxsize=16)
def shares(
  sharding: jax.sharding.Sharding,
  devices: frozenset[jax.Device] | None = None,
) -> tuple[tuple[int, ...], int]:
  """Returns which shares of a batch's rows some devices hold, and of how many.

  Args:
    sharding: the sharding of the rows.
    devices: the devices; those of this process by default.
  """
  rows = sharding.devices_indices_map((len(sharding.device_set),))
  starts = {device: index[0].start or 0 for device, index in rows.items()}
  order = sorted(set(starts.values()))
  devices = sharding.addressable_devices if devices is None else devices
  held = sorted({starts[device] for device in devices})
  return tuple(order.index(start) for start in held), len(order)


def _fill(batches, sharding_of, ready, free, stop) -> None:
  """Runs in the prefetching thread; holds no reference to the consumer."""
  try:
    while True:
      free.acquire()
      if stop.is_set():
        return
      batch = next(batches, None)
      if batch is None:
        ready.put((None, None))
        return
      ready.put(([place(batch, sharding_of)], None))
      # Otherwise this batch would stay alive until the next one has been read.
      del batch
  except BaseException as error:
    ready.put((None, error))
  finally:
    if hasattr(batches, "close"):
      batches.close()
