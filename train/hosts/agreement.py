"""At which step all processes of a run stop: the same on each.

One that is asked to stop tells process 0, which tells all. Each says the
nearest step at the top of which it can still stop, and process 0 answers with
the last of them. The thread that hears the question says so, whatever the main
thread does: that one may be inside a step that needs the others, so none may
wait for another to come to the top of its own.
"""

import threading
from collections.abc import Callable
from typing import Any


class Agreement:
  """A process's part in it; without other processes, the whole of it.

  step: the last top of a step that the main thread has passed, or None before
    the first one: the number of updates that were dispatched before it.
  """

  def __init__(self, processes: int, process_id: int, say: Callable[..., None]):
    """Nothing is asked yet.

    Args:
      processes: of the run.
      process_id: of this one.
      say: sends keywords, as one message: process 0 to all others, they to it.
    """
    self.step: int | None = None
    self._alone, self._first = processes == 1, process_id == 0
    self._processes = processes
    self._say = say
    self._wanted: str | None = None  # here
    self._said = False
    self._reason: str | None = None  # told by process 0
    self._nearest: dict[int, int] = {}
    self._until = 0
    self._known = threading.Event()
    # So that no top is passed between the question and what is said of it.
    self._lock = threading.Lock()

  def ask(self, reason: str) -> None:
    """Wants all processes to stop; the first reason counts. Any thread may."""
    self._wanted = self._wanted or reason

  def stop(self, step: int) -> str | None:
    """Why to stop before update `step`, or None to go on.

    The main thread calls it before every update, whose numbers have no gap.
    All processes get the same answer at the same step.
    """
    if self._alone:
      self.step = step
      return self._wanted
    with self._lock:
      if self._reason is None:
        self.step = step
        return None
    # Not for long: no main thread has a part in the answer. A process that is
    # lost ends this one.
    self._known.wait()
    if step >= self._until:
      return self._reason
    self.step = step
    return None

  def speak(self) -> None:
    """Passes on what was asked here; for the thread that sends and hears."""
    if self._wanted is None or self._said or self._alone:
      return
    self._said = True
    if self._first:
      self._begin(self._wanted)
    else:
      self._say(stop=self._wanted)

  def hear(self, process_id: int, message: dict[str, Any]) -> None:
    """A message of another process, which may be of something else."""
    if "stop" in message:
      self._begin(message["stop"])
    if "nearest" in message:
      self._collect(process_id, message["nearest"])
    if "until" in message:
      self._answer(message["until"])

  def _begin(self, reason: str) -> None:
    if self._reason is not None:
      return
    with self._lock:
      self._reason = reason
      nearest = 0 if self.step is None else self.step + 1
    if self._first:
      self._say(stop=reason)
      self._collect(0, nearest)
    else:
      self._say(nearest=nearest)

  def _collect(self, process_id: int, nearest: int) -> None:
    self._nearest[process_id] = nearest
    if len(self._nearest) == self._processes:
      until = max(self._nearest.values())
      self._say(until=until)
      self._answer(until)

  def _answer(self, until: int) -> None:
    self._until = until
    self._known.set()
