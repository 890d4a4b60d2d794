"""A run that lives and does nothing: noticed, and told who holds it up."""

import pathlib
import sys
import threading
import time
from collections import defaultdict

from train.hosts import roll_call

_ROOT = pathlib.Path(__file__).parent.parent
_OURS = tuple(
  f"{_ROOT / package}/" for package in ("train", "input_pipeline", "models")
)
# Of a longer pause between two looks this much counts: this process itself was
# stopped meanwhile.
_BLINK = 1.0
_NAMED = 4  # as many processes are named; more are counted


class Stall:
  """How long no process has done a step."""

  def __init__(self, timeout: float):
    """`timeout`: seconds after which it counts as a stall; 0 is never."""
    self.seconds = 0.0
    self._timeout = timeout
    self._steps: list[int | None] = []
    self._begun = False
    self._looked = time.monotonic()

  def look(self, steps: list[int | None]) -> bool:
    """Whether the run stalls; to be called more than once a second.

    Counted from the first step on that anyone finishes.

    Args:
      steps: where each process stands, None before its first step.
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
  """Where the main thread is: its innermost line in this project's files."""
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
  """The line that names who holds the run up.

  Args:
    roll: all processes.
    steps: of each, None before its first.
    places: of each, by `place`.
    seconds: that no step was done.
  """
  lasted = f"{seconds:.0f} s (--stall_timeout)"
  if len(steps) == 1:
    return (
      f"no step was done for {lasted}: {_at(steps)}, in {places[0]}; the same"
      " command goes on from the last save"
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
  """Who is where; those that stand alone first."""
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
