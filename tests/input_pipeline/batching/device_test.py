import gc
import threading
import time

import jax
import numpy as np
import pytest

from input_pipeline.batching import device


def sharding():
  mesh = jax.make_mesh(
    (jax.device_count(),),
    ("data",),
    axis_types=(jax.sharding.AxisType.Auto,),
  )
  return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))


def counted(count, produced, closed=None):
  try:
    for i in range(count):
      produced.append(i)
      yield {"x": np.full((8, 3), i, np.float32), "i": np.full(8, i, np.int32)}
  finally:
    if closed is not None:
      closed.set()


def test_prefetch_keeps_the_order_and_shards():
  found = list(device.prefetch(counted(7, []), lambda ndim: sharding()))
  assert [int(b["i"][0]) for b in found] == list(range(7))
  for i, batch in enumerate(found):
    assert batch["x"].sharding.is_equivalent_to(sharding(), 2)
    np.testing.assert_array_equal(batch["x"], np.full((8, 3), i, np.float32))


def wait_until(condition):
  deadline = time.monotonic() + 10
  while not condition():
    assert time.monotonic() < deadline
    time.sleep(0.01)


@pytest.mark.parametrize("depth", [1, 3])
def test_prefetch_holds_no_more_than_depth(depth):
  produced = []
  batches = device.prefetch(
    counted(50, produced), lambda ndim: sharding(), depth
  )
  next(batches)
  wait_until(lambda: len(produced) == depth + 1)
  time.sleep(0.1)
  assert len(produced) == depth + 1
  batches.close()


def test_prefetch_raises_in_the_consumer():
  def broken():
    yield from counted(2, [])
    raise ValueError("record 2 is broken")

  batches = device.prefetch(broken(), lambda ndim: sharding())
  assert int(next(batches)["i"][0]) == 0
  assert int(next(batches)["i"][0]) == 1
  with pytest.raises(ValueError, match="record 2 is broken"):
    next(batches)


@pytest.mark.parametrize("how", ["close", "collect"])
def test_prefetch_ends_its_thread(how):
  closed = threading.Event()
  before = threading.active_count()
  batches = device.prefetch(counted(1000, [], closed), lambda ndim: sharding())
  next(batches)
  if how == "close":
    batches.close()
  del batches
  gc.collect()
  assert closed.wait(10)
  wait_until(lambda: threading.active_count() <= before)
