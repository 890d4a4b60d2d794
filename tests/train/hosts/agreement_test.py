"""All processes stop at the same step, and none waits for another's step."""

import itertools
import queue
import random
import threading
import timeit

import pytest
from many_processes import meet

from train.hosts import agreement, watchdog

STEPS = 100_000


class Collective:
  """An update that ends once every process has dispatched it."""

  def __init__(self, processes: int):
    self._dispatched = [0] * processes
    self._changed = threading.Condition()

  def dispatch(self, i: int, step: int, in_flight: int) -> None:
    """Returns once all but the last `in_flight` updates have ended."""
    with self._changed:
      self._dispatched[i] = step + 1
      self._changed.notify_all()
      ended = self._changed.wait_for(
        lambda: min(self._dispatched) > step - in_flight, timeout=20
      )
    assert ended, f"process {i} waits at step {step}: {self._dispatched}"


def train(parts, in_flight, ask, before=(), seed=0):
  """Steps of every part, as threads, until they stop: where, and why."""
  ends = {}
  collective = Collective(len(parts))

  def one(i):
    rng = random.Random(f"{seed} {i}")
    for step in range(7, STEPS):
      reason = parts[i].stop(step)
      if reason is not None:
        ends[i] = (step, reason)
        return
      if rng.random() < 0.1:
        threading.Event().wait(rng.uniform(0, 0.002))
      collective.dispatch(i, step, in_flight[i])

  threads = [
    threading.Thread(target=one, args=(i,), daemon=True)
    for i in range(len(parts))
  ]
  for i, reason in before:
    parts[i].ask(reason)
  for thread in threads:
    thread.start()
  ask()
  for thread in threads:
    thread.join(timeout=30)
  return ends


def network(count: int, seed: int):
  """Agreements joined by queues that deliver when they please."""
  rng = random.Random(seed)
  inboxes = [queue.Queue() for _ in range(count)]

  def say_of(i):
    def say(**message):
      for j in range(count) if i == 0 else (0,):
        if j != i:
          inboxes[j].put((i, message))

    return say

  parts = [agreement.Agreement(count, i, say_of(i)) for i in range(count)]

  def serve(i):
    while True:
      parts[i].speak()
      try:
        source, message = inboxes[i].get(timeout=0.002)
      except queue.Empty:
        continue
      if message is None:
        return
      threading.Event().wait(rng.uniform(0, 0.005))
      parts[i].hear(source, message)

  threads = [
    threading.Thread(target=serve, args=(i,), daemon=True) for i in range(count)
  ]
  for thread in threads:
    thread.start()

  def close():
    for inbox in inboxes:
      inbox.put((None, None))
    for thread in threads:
      thread.join()

  return parts, close


@pytest.mark.parametrize("in_flight", [(0, 0, 0), (2, 0, 1)])
def test_all_stop_at_one_step_whoever_is_asked_and_when(in_flight):
  """In lockstep, as on CPUs, or with updates in flight: none ever waits."""
  stopped = set()
  for seed in range(20):
    rng = random.Random(seed)
    parts, close = network(3, seed)
    asked = rng.sample(range(3), rng.choice([1, 1, 2, 3]))

    def ask(asked=asked, parts=parts, rng=rng):
      for i in asked:
        threading.Event().wait(rng.uniform(0, 0.02))
        parts[i].ask(f"reason {i}")

    ends = train(parts, in_flight, ask, seed=seed)
    close()
    assert len(ends) == 3 and len(set(ends.values())) == 1, (seed, ends)
    step, reason = ends[0]
    assert reason in {f"reason {i}" for i in asked}
    stopped.add(step)
  assert len(stopped) > 5  # the moments were different ones


def test_asked_before_the_first_step():
  parts, close = network(3, 0)
  ends = train(parts, (0, 0, 0), ask=lambda: None, before=[(1, "early")])
  close()
  assert len(set(ends.values())) == 1
  assert ends[2][1] == "early"
  # One whose main thread is far from its first step, another beyond it.
  parts, close = network(2, 0)
  parts[0].ask("x")
  last = next(step for step in itertools.count(7) if parts[0].stop(step))
  found = [parts[1].stop(step) for step in range(7, last + 1)]
  close()
  assert found == [*[None] * (last - 7), "x"]


@pytest.mark.parametrize("asked", [0, 2])
def test_over_the_connections_of_the_watch(asked):
  met = meet(3)
  watches = [watchdog.Watch(met[i][0], 30.0) for i in range(3)]
  parts = [each.agreement for each in watches]
  ends = train(
    parts,
    (0, 0, 0),
    ask=lambda: parts[asked].ask("SIGTERM"),
  )
  leaving = [threading.Thread(target=each.finish) for each in watches]
  for thread in leaving:
    thread.start()
  for thread in leaving:
    thread.join(timeout=30)
  assert len(ends) == 3 and len(set(ends.values())) == 1
  assert ends[0][1] == "SIGTERM"


def test_one_process_stops_at_its_next_step():
  alone = watchdog.alone(0)
  assert alone.agreement.stop(5) is None
  alone.agreement.ask("SIGTERM")
  alone.agreement.ask("something else")
  assert alone.agreement.stop(6) == "SIGTERM"
  assert alone.agreement.step == 6
  alone.finish()


def test_a_step_that_nobody_asks_about_costs_nothing():
  parts, close = network(2, 0)
  steps = itertools.count()
  seconds = min(
    timeit.repeat(lambda: parts[0].stop(next(steps)), number=5000, repeat=5)
  )
  close()
  assert seconds / 5000 < 20e-6
