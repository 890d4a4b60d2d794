"""The interface of a writer, and a guard around one that may fail."""

import importlib.util
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from common.errors import UserError


def _nothing(*_: Any) -> None:
  pass


class Writer(NamedTuple):
  """A destination of the metrics and other output of a run.

  start: (step or None) -> None; begins, or continues after a checkpoint of
    `step`. Called again when a run rolls back to a checkpoint.
  write: (step, {tag: float}) -> None
  histograms: (step, {tag: measuring.histograms.Histogram}) -> None
  images: (step, {tag: uint8 [H, W, 3]}) -> None
  text: (step, {tag: str}) -> None
  close: () -> None
  histograms_every: the number of steps between histograms; 0 writes none.
  """

  start: Callable[[int | None], None]
  write: Callable[[int, dict[str, float]], None]
  histograms: Callable[[int, dict[str, Any]], None] = _nothing
  images: Callable[[int, dict[str, Any]], None] = _nothing
  text: Callable[[int, dict[str, str]], None] = _nothing
  close: Callable[[], None] = _nothing
  histograms_every: int = 0


def need(library: str) -> None:
  """Raises UserError unless `library`, the name of an extra, is installed."""
  if importlib.util.find_spec(library) is None:
    raise UserError(
      f"config.writers: {library} is not installed: pip install -e"
      f" '.[{library}]'"
    )


# Seconds before a writer that has failed is tried again: doubled each time.
_WAIT, _LONGEST_WAIT = 60.0, 3600.0


def guarded(name: str, writer: Writer, say: Callable[[str], None]) -> Writer:
  """Wraps `writer` so that its errors are printed and do not end the run.

  After an error nothing is written for a minute, which doubles with each
  further error up to an hour. Metrics of this time are missing in the writer's
  output, but not in metrics.jsonl.
  """
  state = {"failures": 0, "again": 0.0, "opened": False, "step": None}

  def failed(error):
    state["failures"] += 1
    wait = min(_WAIT * 2 ** (state["failures"] - 1), _LONGEST_WAIT)
    state["again"] = time.monotonic() + wait
    if state["failures"] == 1:
      line = (str(error).strip().splitlines() or [""])[0][:200]
      say(
        f"writer {name} failed: {type(error).__name__}: {line}; the run"
        " continues without it, and it is tried again later"
      )

  def attempt(call, *args):
    if state["failures"] and time.monotonic() < state["again"]:
      return
    try:
      if not state["opened"]:
        writer.start(state["step"])
        state["opened"] = True
      call(*args)
    except Exception as error:
      failed(error)
      return
    if state["failures"]:
      state["failures"] = 0
      say(f"writer {name} works again")

  def start(step):
    state.update(opened=False, step=step)
    attempt(_nothing)

  def close():
    if state["opened"]:
      state["opened"] = False
      try:
        writer.close()
      except Exception as error:
        failed(error)

  return Writer(
    start,
    lambda step, scalars: attempt(writer.write, step, scalars),
    lambda step, found: attempt(writer.histograms, step, found),
    lambda step, found: attempt(writer.images, step, found),
    lambda step, found: attempt(writer.text, step, found),
    close,
    writer.histograms_every,
  )
