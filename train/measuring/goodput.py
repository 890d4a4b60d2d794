"""Goodput: the share of wall time spent on steps that were kept.

WORKDIR/goodput.jsonl is a ledger of all starts of a run. It is only appended
to, one JSON object per row:

  time: Unix seconds.
  event: "start" of a process; "resume" from the checkpoint of "step", or from
    the beginning (null); "save" of "step"; "end" of the run; "stop", if the
    process ended before the run; "beat", written at intervals.
  seconds: seconds by phase (timing.PHASES) since the process's previous row.
  energy_kwh or energy_kwh_estimated: energy since the process's previous row.

Wall time runs from the first start to now, without the pause between the end of
a run and a start that trains it further. It is divided into the phases, "down"
(from the last row of a process that stopped or was killed to the next start)
and "lost" (the seconds of steps after the checkpoint from which a process
resumed). Steps since the last save count as kept until they are lost.
"""

import copy
import json
import math
import os
import pathlib
import threading
import time
from collections.abc import Iterable
from typing import Any

from common import json_lines
from train.measuring import energy, timing

_EVENTS = ("start", "resume", "save", "end", "stop", "beat")


def beat_seconds(wall: float) -> float:
  """Seconds until the next beat, `wall` seconds after the first start.

  A thousandth of `wall`, but at least 0.1: the ledger grows with the logarithm
  of the run's length, and a kill leaves at most that share unrecorded.
  """
  return max(0.1, 1e-3 * wall)


class Totals:
  """Sums over rows in order: `seconds` by phase and `used`, the energy."""

  def __init__(self):
    self.seconds = dict.fromkeys((*timing.PHASES, "lost", "down"), 0.0)
    self.used: dict[str, float] = {}
    self._kept: dict[int, float] = {}  # seconds of steps at each save
    self._before = None

  def add(self, row: dict[str, Any]) -> None:
    """Adds the next row; a resume from an unrecorded save loses nothing."""
    event, spent = row["event"], self.seconds
    if event == "start" and self._before and self._before["event"] != "end":
      spent["down"] += max(0.0, row["time"] - self._before["time"])
    for phase, seconds in row.get("seconds", {}).items():
      spent[phase] += seconds
    for key in energy.KEYS:
      if key in row:
        self.used[key] = self.used.get(key, 0.0) + row[key]
    if event == "save":
      self._kept[row["step"]] = spent["step"]
    if event == "resume":
      step = row["step"]
      kept = 0.0 if step is None else self._kept.get(step, spent["step"])
      spent["lost"] += spent["step"] - kept
      spent["step"] = kept
    self._before = row

  def summary(self) -> dict[str, float]:
    """Shares of wall time, {"goodput": …, "badput_start": …}, and energy."""
    wall = sum(self.seconds.values()) or 1.0
    badput = {
      f"badput_{name}": seconds / wall
      for name, seconds in self.seconds.items()
      if name != "step" and seconds
    }
    return {"goodput": self.seconds["step"] / wall, **badput, **self.used}


def totals(rows: Iterable[dict[str, Any]]) -> Totals:
  """The Totals of a whole ledger."""
  found = Totals()
  for row in rows:
    found.add(row)
  return found


def summary(rows: Iterable[dict[str, Any]]) -> dict[str, float]:
  """`Totals.summary` of a whole ledger."""
  return totals(rows).summary()


def read(path: str | os.PathLike) -> list[dict[str, Any]]:
  """The rows of a ledger, without incomplete and damaged rows.

  Raises:
    UserError: `path` is not a regular file.
  """
  return [row for _, row in json_lines.read(path) if row and _is_row(row)]


def _is_row(row: dict[str, Any]) -> bool:
  """Whether a row is valid for `Totals.add`."""
  event, seconds, step = (
    row.get("event"),
    row.get("seconds", {}),
    row.get("step"),
  )
  figures = [row.get("time"), *(row[key] for key in energy.KEYS if key in row)]
  if event not in _EVENTS or not isinstance(seconds, dict):
    return False
  if not set(seconds) <= set(timing.PHASES):
    return False
  figures += seconds.values()
  if event == "resume" and "step" not in row:
    return False
  # Without a step, the key is absent or null; also for a resume from nothing.
  stepped = json_lines.count(step) or (step is None and event != "save")
  return stepped and all(
    json_lines.number(x) and math.isfinite(x) for x in figures
  )


def describe(path: str | os.PathLike) -> list[str]:
  """Lines to print: shares of wall time in descending order, and energy."""
  found = totals(read(path))
  wall = sum(found.seconds.values())
  if not wall:
    return []
  shares = found.summary()
  rest = [
    f"{name} {100 * seconds / wall:.1f} %"
    for name, seconds in sorted(found.seconds.items(), key=lambda x: -x[1])
    if name != "step" and seconds >= 5e-4 * wall
  ]
  hours, tenths = divmod(round(wall / 6), 600)
  spent = f"{hours} h " * (hours > 0) + f"{tenths / 10:.1f} min"
  lost = f"; {', '.join(rest)}" if rest else ""
  lines = [f"goodput {100 * shares['goodput']:.1f} % of {spent}{lost}"]
  for key, kwh in found.used.items():
    lines.append(f"{key} {kwh:.4g}")
  return lines


def process_start() -> float:
  """Unix time at which this process began; now where that is unknown."""
  try:
    stat = pathlib.Path("/proc/self/stat").read_text()
    ticks = int(stat.rsplit(")", 1)[1].split()[19])  # the name may hold spaces
    began = ticks / os.sysconf("SC_CLK_TCK")
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - began
  except (OSError, AttributeError, ValueError):
    age = 0.0
  return time.time() - max(0.0, age)


class Ledger:
  """Writes the rows of one process and sums those of all starts."""

  def __init__(
    self,
    path: str | None,
    clock: timing.Clock,
    costs: Any = None,
  ):
    """Writes the row "start" and starts the thread that writes beats.

    Args:
      path: the file; None writes nothing and sums this process only.
      clock: measures the seconds by phase.
      costs: a costs.Costs for an estimate of energy, or None.
    """
    self._clock, self._meter = clock, energy.meter(costs)
    self._totals = totals(read(path) if path else [])
    self._file = open(path, "a") if path else None  # noqa: SIM115
    self._lock = threading.Lock()
    self._written = dict.fromkeys((*timing.PHASES, "energy"), 0.0)
    if self._file:
      self._file.write("\n")  # ends a row that a kill cut short
    self._write({"time": clock.started, "event": "start"})
    self._over = threading.Event()
    self._beats = threading.Thread(target=self._beat, daemon=True)
    self._beats.start()

  def note(self, event: str, step: int | None = None) -> None:
    """Writes a row, which is on disk on return."""
    with self._lock:
      self._write({**self._row(), "event": event, "step": step})
      if self._file:
        os.fsync(self._file.fileno())

  def summary(self) -> dict[str, float]:
    """`Totals.summary` of all starts up to now; nothing is written."""
    with self._lock:
      found = copy.copy(self._totals)
      found.seconds, found.used = {**found.seconds}, {**found.used}
      found.add({**self._row(), "event": "beat"})
    return found.summary()

  def __enter__(self):
    return self

  def __exit__(self, error, *_):
    self._over.set()
    self._beats.join()
    self.note("stop" if error else "end")
    if self._file:
      self._file.close()

  def _beat(self):
    wall = 0.0
    while not self._over.wait(beat_seconds(wall)):
      with self._lock:
        try:
          self._write({**self._row(), "event": "beat"})
        except OSError:
          return  # the next note fails too, and the run reports it
        wall = sum(self._totals.seconds.values())

  def _row(self) -> dict[str, Any]:
    """The seconds and the energy since the previous row."""
    now = self._clock.seconds()
    spent = {name: round(now[name] - self._written[name], 6) for name in now}
    row = {
      "time": self._clock.started + sum(now.values()),
      "seconds": {name: value for name, value in spent.items() if value},
    }
    if self._meter is not None:
      row[self._meter.key] = self._meter.kwh() - self._written["energy"]
    return row

  def _write(self, row: dict[str, Any]) -> None:
    self._totals.add(row)
    for name, seconds in row.get("seconds", {}).items():
      self._written[name] += seconds
    if self._meter is not None:
      self._written["energy"] += row.get(self._meter.key, 0.0)
    if self._file:
      self._file.write(json.dumps(row) + "\n")
      self._file.flush()
