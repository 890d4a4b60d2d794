"""When a run saves: every so many steps, every so many minutes, or both."""

import time
from collections.abc import Callable

from train.hosts import distributed


class Schedule:
  """Whether to save now, the same answer on every process.

  Steps are counted by all alike. Minutes are process 0's, which the others ask
  for at steps that all know: after 1, 2, 4, … steps, and when the time is
  nearly up. So asking costs a handful of exchanges between two saves.
  """

  def __init__(
    self,
    every_steps: int,
    every_minutes: float,
    clock: Callable[[], float] = time.monotonic,
  ):
    """`every_steps`, `every_minutes`: 0 is never; `clock`: seconds."""
    self._every, self._interval = every_steps, 60 * every_minutes
    self._clock = clock
    self._saved_at, self._saved_step, self._ask = clock(), None, 0

  def due(self, step: int) -> bool:
    """Whether the state of `step` is to be saved; called at every step."""
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
    """Counts anew from `step`, whose state is saved or was restored."""
    self._saved_at, self._saved_step = self._clock(), step
    self._ask = step + 1
