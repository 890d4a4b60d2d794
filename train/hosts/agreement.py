"""Agreement of all processes of a run on the step at which they stop.

A process that is asked to stop notifies process 0, which asks all processes.
Each answers with the next step before which it can still stop, and process 0
announces the latest of them. The answers are given by the watchdog's thread,
not by the main thread: that one may be inside a step that waits for the other
processes, so no process may wait until another one begins its next step.
"""

import threading
from collections.abc import Callable
from typing import Any


class Agreement:
  """One process's side of the agreement.

  step: the last step that the main thread has begun, as the number of updates
    dispatched before it; None before the first one.
  """

  def __init__(self, processes: int, process_id: int, say: Callable[..., None]):
    """Starts without a request to stop.

    Args:
      processes: the number of processes of the run.
      process_id: the number of this process.
      say: sends keyword arguments as one message: from process 0 to all others,
        and from the others to process 0.
    """
    self.step: int | None = None
    self._alone, self._first = processes == 1, process_id == 0
    self._processes = processes
    self._say = say
    self._wanted: str | None = None  # by this process
    self._announced = False
    self._reason: str | None = None  # from process 0
    self._nearest: dict[int, int] = {}
    self._until = 0
    self._known = threading.Event()
    # The main thread must not begin a step while the answer is being given.
    self._lock = threading.Lock()

  def ask(self, reason: str) -> None:
    """Asks all processes to stop; the first reason counts. Thread-safe."""
    self._wanted = self._wanted or reason

  def stop(self, step: int) -> str | None:
    """The reason to stop before update `step`, or None to continue.

    The main thread calls it before every update, with consecutive steps. All
    processes get the same answer at the same step.
    """
    if self._alone:
      self.step = step
      return self._wanted
    with self._lock:
      if self._reason is None:
        self.step = step
        return None
    # This is short: no main thread takes part in the answer. If a process is
    # lost, the watchdog ends this one.
    self._known.wait()
    if step >= self._until:
      return self._reason
    self.step = step
    return None

  def speak(self) -> None:
    """Sends a request of this process; called by the watchdog's thread."""
    if self._wanted is None or self._announced or self._alone:
      return
    self._announced = True
    if self._first:
      self._begin(self._wanted)
    else:
      self._say(stop=self._wanted)

  def hear(self, process_id: int, message: dict[str, Any]) -> None:
    """Handles a message of another process; unrelated ones are ignored."""
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
