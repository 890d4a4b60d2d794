"""When a run saves: by the number of steps, by time, or by both."""

import time
from collections.abc import Callable

from train.hosts import distributed


class Schedule:
  """Decides when to save; the decision is the same on every process.

  All processes count steps in the same way. Time is measured by process 0 and
  exchanged only at certain steps, which all processes can compute: 1, 2, 4, …
  steps after a save and shortly before the next one is due. This takes only a
  few exchanges between two saves.
  """

  def __init__(
    self,
    every_steps: int,
    every_minutes: float,
    clock: Callable[[], float] = time.monotonic,
  ):
    """0 disables `every_steps` or `every_minutes`; `clock` is in seconds."""
    self._every, self._interval = every_steps, 60 * every_minutes
    self._clock = clock
    self._saved_at, self._saved_step, self._ask = clock(), None, 0

  def due(self, step: int) -> bool:
    """Returns whether to save the state of `step`; call it at every step."""
    if self._saved_step is None:
      self.saved(step)
      return False
    if self._every and step % self._every == 0:
      return True
    if not self._interval or step < self._ask:
      return False
    elapsed = distributed.said_by_first(self._clock() - self._saved_at)
    if elapsed >= self._interval:
      return True
    steps = step - self._saved_step
    left = int((self._interval - elapsed) * steps / max(elapsed, 1e-9))
    self._ask = step + max(1, min(steps, left))
    return False

  def saved(self, step: int) -> None:
    """Restarts counting at `step`, whose state was saved or restored."""
    self._saved_at, self._saved_step = self._clock(), step
    self._ask = step + 1
