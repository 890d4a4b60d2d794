"""Where the time of a run goes."""

import contextlib
import time

# The keys of metrics.jsonl that depend on the clock. All others are the same,
# to the bit, in a run that was killed and resumed.
CLOCK_KEYS = (
  "examples_per_second",
  "tokens_per_second",
  "step_seconds",
  "data_wait",
  "compile_seconds",
)


class Clock:
  """Counts the seconds spent in steps, and those of them spent on data.

  Evaluation, saving and compilation stand apart: speed is that of training.
  """

  def __init__(self, units_per_step: dict[str, int]):
    """`units_per_step`: what a step consumes: {"examples": 12, …}."""
    self._units = units_per_step
    self._compiled = None
    self._reset()

  def _reset(self):
    self._start = time.perf_counter()
    self._steps = 0
    self._waited = 0.0
    self._apart = 0.0

  @contextlib.contextmanager
  def apart(self):
    """Time inside is not the time of steps."""
    start = time.perf_counter()
    yield
    self._apart += time.perf_counter() - start

  @contextlib.contextmanager
  def waiting(self):
    """Time inside is spent waiting for data."""
    start = time.perf_counter()
    yield
    self._waited += time.perf_counter() - start

  @contextlib.contextmanager
  def step(self):
    """One step is dispatched inside; the first one compiles."""
    start = time.perf_counter()
    yield
    if self._compiled is None:
      self._compiled = time.perf_counter() - start
      self._reset()
    else:
      self._steps += 1

  def read(self) -> dict[str, float]:
    """The figures since the last read; {} where there was no step."""
    seconds = time.perf_counter() - self._start - self._apart
    if not self._steps or seconds <= 0:
      return {}
    figures = {
      f"{unit}_per_second": n * self._steps / seconds
      for unit, n in self._units.items()
    }
    figures["step_seconds"] = seconds / self._steps
    figures["data_wait"] = self._waited / seconds
    if self._compiled:
      figures["compile_seconds"] = self._compiled
      self._compiled = 0.0
    self._reset()
    return figures
