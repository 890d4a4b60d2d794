"""Host batches -> global arrays on the devices, prefetched."""

import functools
import queue
import threading
from collections.abc import Callable, Iterator

import jax
import numpy as np

ShardingOf = Callable[[int], jax.sharding.Sharding]


def prefetch(
  batches: Iterator[dict[str, np.ndarray]],
  sharding_of: ShardingOf,
  depth: int = 2,
) -> Iterator[dict[str, jax.Array]]:
  """Places batches ahead of their use, in a thread of its own.

  Args:
    batches: this host's rows of each global batch; it is read by the thread
      alone, and closed by it.
    sharding_of: (ndim) -> the sharding of a leaf with so many dimensions.
    depth: how many batches are placed before they are asked for.

  Yields:
    The batches in their order, each leaf a global array.

  Raises:
    Whatever reading raises, where the failed batch would have come.
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
      # Popped, so that only the consumer keeps it alive.
      yield batch.pop()
  finally:
    stop.set()
    free.release()
    # The collector may run in the thread itself, which cannot join itself.
    if threading.current_thread() is not thread:
      # Not forever: a read that hangs must not keep the run from ending.
      thread.join(timeout=5)


def place(
  batch: dict[str, np.ndarray], sharding_of: ShardingOf
) -> dict[str, jax.Array]:
  """One host batch as global arrays.

  The host holds whole rows: those of its `shares`, one after another. Where
  the devices of several hosts hold parts of the same rows, each host reads
  the rows and places its parts.
  """
  held, count = shares(sharding_of(1))

  def placed(leaf):
    size = len(leaf) // len(held)

    def part(index):
      start = held.index((index[0].start or 0) // size) * size
      return leaf[(slice(start, start + size), *index[1:])]

    shape = (size * count, *leaf.shape[1:])
    sharding = sharding_of(leaf.ndim)
    return jax.make_array_from_callback(shape, sharding, part)

  return {name: placed(leaf) for name, leaf in batch.items()}


@functools.lru_cache(maxsize=16)
def shares(
  sharding: jax.sharding.Sharding,
  devices: frozenset[jax.Device] | None = None,
) -> tuple[tuple[int, ...], int]:
  """Which shares of a batch's rows some devices hold, and of how many.

  Args:
    sharding: of the rows.
    devices: those of this process by default.
  """
  rows = sharding.devices_indices_map((len(sharding.device_set),))
  starts = {device: index[0].start or 0 for device, index in rows.items()}
  order = sorted(set(starts.values()))
  devices = sharding.addressable_devices if devices is None else devices
  held = sorted({starts[device] for device in devices})
  return tuple(order.index(start) for start in held), len(order)


def _fill(batches, sharding_of, ready, free, stop) -> None:
  """What the thread does; it holds no reference to the consumer."""
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
      # Else this batch would live until the next one has been read.
      del batch
  except BaseException as error:
    ready.put((None, error))
  finally:
    if hasattr(batches, "close"):
      batches.close()
