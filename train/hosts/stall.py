"""Detects a run that is alive but makes no progress, and names the cause."""

import pathlib
import sys
import threading
import time
from collections import defaultdict

from train.hosts import roll_call

_ROOT = pathlib.Path(__file__).parents[2]
_OURS = tuple(
  f"{_ROOT / package}/" for package in ("train", "input_pipeline", "models")
)
# Longer pauses between two looks count as this many seconds: this process
# itself was suspended meanwhile.
_BLINK = 1.0
_NAMED = 4  # up to this many processes are named; more are counted


class Stall:
  """The time since any process last did a step."""

  def __init__(self, timeout: float):
    """`timeout`: the number of seconds that count as a stall; 0 disables it."""
    self.seconds = 0.0
    self._timeout = timeout
    self._steps: list[int | None] = []
    self._begun = False
    self._looked = time.monotonic()

  def look(self, steps: list[int | None]) -> bool:
    """Whether the run has stalled; to be called more than once a second.

    The time is counted from the first step that any process finishes.

    Args:
      steps: the step of each process, None before its first one.
    """
    now = time.monotonic()
    self.seconds += min(now - self._looked, _BLINK)
    self._looked = now
    if steps != self._steps:
      self._begun |= any(
        before is not None and after is not None and after > before
        for before, after in zip(self._steps, steps, strict=False)
      )
      self._steps, self.seconds = steps, 0.0
    return self._begun and 0 < self._timeout < self.seconds


def place() -> str:
  """The position of the main thread: its innermost line in our files."""
  frame = sys._current_frames().get(threading.main_thread().ident)
  innermost = frame
  while frame and not frame.f_code.co_filename.startswith(_OURS):
    frame = frame.f_back
  frame = frame or innermost
  if frame is None:
    return "?"
  code = frame.f_code
  name = code.co_filename.removeprefix(f"{_ROOT}/")
  return f"{name}:{frame.f_lineno} ({code.co_name})"


def describe(
  roll: roll_call.Roll,
  steps: list[int | None],
  places: list[str],
  seconds: float,
) -> str:
  """The line that names the processes that hold up the run.

  Args:
    roll: all processes.
    steps: the step of each process, None before its first one.
    places: the position of each process, from `place`.
    seconds: the time since the last step.
  """
  lasted = f"{seconds:.0f} s (--stall_timeout)"
  if len(steps) == 1:
    return (
      f"no step was done for {lasted}: {_at(steps)}, in {places[0]}; the same"
      " command resumes from the last checkpoint"
    )
  numbers = [-1 if step is None else step for step in steps]
  behind = [i for i, n in enumerate(numbers) if n == min(numbers)]
  ahead = [step for step in steps if step != steps[behind[0]]]
  where = _where(roll, places, behind)
  if ahead:
    has, it_is = ("has", "it is") if len(behind) == 1 else ("have", "they are")
    line = (
      f"{_who(roll, behind)} {has} done no step for {lasted}, {it_is}"
      f" {_at([steps[behind[0]]])}, {where}; the others wait {_at(ahead)}"
    )
  else:
    line = (
      f"no process of {len(steps)} has done a step for {lasted}; all are"
      f" {_at(steps[:1])}: {where}"
    )
  return f"{line}; {roll_call.AGAIN}"


def _at(steps) -> str:
  if None in steps:
    return "before the first step"
  first, last = min(steps), max(steps)
  return f"at step {first}" if first == last else f"at steps {first} to {last}"


def _where(roll, places, ids) -> str:
  """The positions of the processes, rare positions first."""
  groups = defaultdict(list)
  for i in ids:
    groups[places[i]].append(i)
  if len(groups) == 1:
    return f"in {places[ids[0]]}"
  ordered = sorted(groups.items(), key=lambda group: len(group[1]))
  return ", ".join(f"{_who(roll, who)} in {where}" for where, who in ordered)


def _who(roll, ids) -> str:
  if len(ids) > _NAMED:
    return f"{len(ids)} processes"
  return ", ".join(roll.title(i) for i in ids)
