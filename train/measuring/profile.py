"""Profiler traces, shown by `tensorboard --logdir=WORKDIR/profile` or XProf."""

import re
from typing import Any

import jax

from common.errors import UserError


class Trace:
  """Traces `steps` updates, beginning with the one after step `first`."""

  def __init__(self, directory: str = "", first: int = 0, steps: int = 0):
    """Writes the trace under `directory`; traces nothing if `steps` is 0."""
    self._directory = directory
    self._first, self._last = first, first + steps - 1
    self._on = self._written = False

  def before(self, step: int) -> None:
    """Called before the batch of `step` is taken."""
    if self._first == step <= self._last:
      options = jax.profiler.ProfileOptions()
      options.python_tracer_level = 0  # its events would displace the step's
      jax.profiler.start_trace(self._directory, profiler_options=options)
      self._on = True

  def after(self, step: int, update: Any) -> None:
    """Called after `step` is dispatched; `update` is its result."""
    if self._on and step == self._last:
      jax.block_until_ready(update)
      self.close()

  def close(self) -> None:
    """Ends and writes the trace, if one is being recorded."""
    if self._on:
      self._on = False
      jax.profiler.stop_trace()
      self._written = True

  def describe(self) -> str:
    """A line to print: where the trace is, or why there is none."""
    if self._written:
      return f"profile  tensorboard --logdir={self._directory}"
    return f"profile  none: this start began after step {self._first}"


def parse(text: str, total_steps: int) -> tuple[int, int]:
  """(START, STEPS) of "START:STEPS".

  Raises:
    UserError: `text` has another form, or the run has no such steps.
  """
  found = re.fullmatch(r"(\d+):(\d+)", text)
  if not found or int(found[2]) < 1:
    raise UserError(
      f"--profile={text}: is not START:STEPS, such as 100:5 for five steps"
      " from step 100 on"
    )
  first, steps = int(found[1]), int(found[2])
  if first + steps > total_steps:
    raise UserError(
      f"--profile={text}: the run has {total_steps} steps, the last of which"
      f" starts at {total_steps - 1}"
    )
  return first, steps
