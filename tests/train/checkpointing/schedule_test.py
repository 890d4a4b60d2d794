"""Saves by steps and by minutes."""

import itertools

from train.checkpointing.schedule import Schedule


def saves(every_steps, every_minutes, seconds_of, steps, start=0):
  """The steps that are saved, where step k takes seconds_of(k)."""
  now = [0.0]
  schedule = Schedule(every_steps, every_minutes, clock=lambda: now[0])
  found = []
  for step in range(start, start + steps):
    if schedule.due(step):
      found.append(step)
      schedule.saved(step)
    now[0] += seconds_of(step)
  return found


def test_every_so_many_steps():
  assert saves(7, 0, lambda k: 1, 30) == [7, 14, 21, 28]
  assert saves(7, 0, lambda k: 1, 30, start=9) == [14, 21, 28, 35]
  assert saves(0, 0, lambda k: 100, 99) == []


def test_at_least_every_so_many_minutes():
  """Never a step too late, whether steps grow faster or slower."""
  for seconds_of in (
    lambda k: 1,
    lambda k: 700,
    lambda k: 0.013,
    lambda k: 20 if k < 100 else 0.5,
    lambda k: 0.5 if k < 1000 else 20,
  ):
    found = [0, *saves(0, 10, seconds_of, 200_000)]
    if seconds_of(0) == 0.5:
      # Twice as many steps as before may pass until the clock is asked.
      assert found[1] <= 2 * 1000
      continue
    for first, second in itertools.pairwise(found[:50]):
      passed = sum(seconds_of(k) for k in range(first, second))
      assert 600 <= passed <= 600 + 1.1 * seconds_of(second - 1)


def test_the_clock_is_asked_seldom(monkeypatch):
  from train.hosts import distributed

  asked = []
  monkeypatch.setattr(
    distributed, "said_by_first", lambda value: asked.append(value) or value
  )
  assert len(saves(0, 10, lambda k: 0.01, 200_000)) == 3
  assert len(asked) < 120
