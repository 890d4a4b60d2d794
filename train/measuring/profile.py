"""Traces of some steps: `tensorboard --logdir=WORKDIR/profile`, or XProf."""

import re
from typing import Any

import jax

from common.errors import UserError


class Trace:
  """Traces `steps` updates from the one that starts at step `first`."""

  def __init__(self, directory: str = "", first: int = 0, steps: int = 0):
    """Traces nothing where `steps` is 0; else writes under `directory`."""
    self._directory = directory
    self._first, self._last = first, first + steps - 1
    self._on = self._written = False

  def before(self, step: int) -> None:
    """Called before the batch of `step` is taken."""
    if self._first == step <= self._last:
      options = jax.profiler.ProfileOptions()
      options.python_tracer_level = 0  # its events would crowd out the step's
      jax.profiler.start_trace(self._directory, profiler_options=options)
      self._on = True

  def after(self, step: int, update: Any) -> None:
    """Called when the update of `step`, which gives `update`, is dispatched."""
    if self._on and step == self._last:
      jax.block_until_ready(update)
      self.close()

  def close(self) -> None:
    """Writes the trace, if one is being made."""
    if self._on:
      self._on = False
      jax.profiler.stop_trace()
      self._written = True

  def describe(self) -> str:
    """A line for people: where the trace is, or why there is none."""
    if self._written:
      return f"profile  tensorboard --logdir={self._directory}"
    return f"profile  none: step {self._first} was done before this start"


def parse(text: str, total_steps: int) -> tuple[int, int]:
  """(START, STEPS) of "START:STEPS".

  Raises:
    UserError: it is not that, or there are no such steps in the run.
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
