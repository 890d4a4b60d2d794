"""The wall time of a run by phase, and the speeds computed from it."""

import contextlib
import functools
import sys
import threading
import time
from collections import defaultdict
from typing import Any

import jax

try:
  import resource
except ImportError:  # on Windows
  resource: Any = None

# What the host is doing. "step" is training: dispatching an update, waiting for
# its metrics, and the loop itself. "data" is waiting for a batch while the
# devices are idle; "report" is writing and showing metrics.
PHASES = (
  "step",
  "start",
  "compile",
  "restore",
  "data",
  "evaluation",
  "save",
  "report",
)
# Speed is that of training, without evaluating, saving and compiling.
_TRAINING = ("step", "data", "report")

# The keys of metrics.jsonl that depend on the clock or the machine. All others
# are bitwise the same in a run that was killed and resumed.
CLOCK_KEYS = (
  "examples_per_second",
  "tokens_per_second",
  "step_seconds",
  "data_wait",
  "mfu",
  "compile_seconds",
  "cache_hits",
  "cache_misses",
  "host_memory_bytes",
  "device_memory_bytes",
  "energy_kwh",
  "energy_kwh_estimated",
  "goodput",
  *(f"badput_{name}" for name in (*PHASES[1:], "lost", "down")),
)


class Clock:
  """Assigns every second since the start of a run to exactly one phase.

  Time is measured on the host. Updates run asynchronously, so waiting for the
  metrics of an update counts as "step", and so does waiting for a batch until
  the previous update has finished.
  """

  def __init__(
    self,
    units_per_step: dict[str, int],
    costs: Any = None,
    started: float | None = None,
  ):
    """Starts in the phase "start".

    Args:
      units_per_step: the number of units per step: {"examples": 12, …}.
      costs: a costs.Costs for "mfu", or None.
      started: Unix time at which the run began; None is now.
    """
    self._units, self._costs = units_per_step, costs
    self._lock = threading.Lock()
    self._compilation = _compilation()
    self._thread = threading.get_ident()
    self._compiled = self._compilation.seconds[self._thread]
    self._seconds = dict.fromkeys(PHASES, 0.0)
    self._phase = "start"
    now = time.time()
    self.started = now if started is None else min(started, now)
    self._since = time.perf_counter() - (now - self.started)
    self._stepped = self._starved = False
    self._reported = {"compile_seconds": 0.0, **self._compilation.counts}
    self._reset()

  def seconds(self) -> dict[str, float]:
    """Seconds by phase from the start to now; any thread may call this."""
    with self._lock:
      self._charge()
      return dict(self._seconds)

  @contextlib.contextmanager
  def phase(self, name: str):
    """Counts the time inside as this phase, except in inner phases."""
    before = self._enter(name)
    try:
      yield
    finally:
      self._enter(before)

  @contextlib.contextmanager
  def step(self, number: int):
    """Update `number` is dispatched inside; the first one compiles."""
    phase = self.phase("step" if self._stepped else "compile")
    # The annotation by which profilers recognize a step.
    with phase, jax.profiler.StepTraceAnnotation("train", step_num=number):
      yield
    if self._stepped:
      self._steps += 1
    else:
      self._stepped = True
      self._enter("step")
      self._reset()

  @contextlib.contextmanager
  def waiting(self, update: Any = None):
    """Waits for a batch inside, while `update` may still be running.

    Args:
      update: arrays of the last update dispatched; None if it has finished.
    """
    if update is not None and self._starved:
      # The data is slower than the steps, so waiting for the update first costs
      # nothing, and the devices are idle for the rest of the wait.
      jax.block_until_ready(update)
    waited = -self._seconds["data"]
    with self.phase("data"):
      yield
    waited += self._seconds["data"]
    busy = update is not None and not _ready(update)
    self._starved = not busy and waited > 1e-3
    if busy:
      with self._lock:
        self._seconds["data"] -= waited
        self._seconds["step"] += waited

  def read(self) -> dict[str, float]:
    """Speeds since the last call; {} if there was no step."""
    now = self.seconds()
    spent = {name: now[name] - self._read[name] for name in _TRAINING}
    seconds = sum(spent.values())
    if not self._steps or seconds <= 0:
      return {}
    figures = {
      f"{unit}_per_second": n * self._steps / seconds
      for unit, n in self._units.items()
    }
    figures["step_seconds"] = seconds / self._steps
    figures["data_wait"] = spent["data"] / seconds
    if self._costs is not None and self._costs.peak_flops:
      figures["mfu"] = self._costs.mfu(figures["step_seconds"])
    figures.update(peak_memory())
    figures.update(self._compiled_since(now["compile"]))
    self._reset()
    return figures

  def _compiled_since(self, seconds: float) -> dict[str, float]:
    """Compilation figures since the last call; {} if nothing was compiled."""
    now = {"compile_seconds": seconds, **self._compilation.counts}
    figures = {
      name: value - self._reported[name] for name, value in now.items()
    }
    self._reported = now
    return figures if figures["compile_seconds"] > 0 else {}

  def _enter(self, name: str) -> str:
    with self._lock:
      self._charge()
      before, self._phase = self._phase, name
    return before

  def _charge(self):
    now = time.perf_counter()
    seen = self._compilation.seconds[self._thread]
    compiled, self._compiled = seen - self._compiled, seen
    self._seconds["compile"] += compiled
    self._seconds[self._phase] += now - self._since - compiled
    self._since = now

  def _reset(self):
    self._read = self.seconds()
    self._steps = 0


class _Compilation:
  """Compile seconds by thread and cache counts, as JAX reports them."""

  def __init__(self):
    self.seconds: dict[int, float] = defaultdict(float)
    self.counts = {"cache_hits": 0, "cache_misses": 0}

  def on_duration(self, event: str, seconds: float, **_):
    if event == "/jax/core/compile/backend_compile_duration":
      self.seconds[threading.get_ident()] += seconds

  def on_event(self, event: str, **_):
    name = event.removeprefix("/jax/compilation_cache/")
    if name in self.counts:
      self.counts[name] += 1


@functools.cache
def _compilation() -> _Compilation:
  """The one listener of this process."""
  found = _Compilation()
  jax.monitoring.register_event_duration_secs_listener(found.on_duration)
  jax.monitoring.register_event_listener(found.on_event)
  return found


def _ready(arrays: Any) -> bool:
  """Whether the update that computes `arrays` has finished."""
  leaves = jax.tree.leaves(arrays)
  return all(x.is_ready() for x in leaves if isinstance(x, jax.Array))


def peak_memory() -> dict[str, int]:
  """The peak memory of this process and of one of its devices, in bytes.

  Keys: "host_memory_bytes", and "device_memory_bytes" where it is reported.
  """
  found = {}
  if resource is not None:
    unit = 1 if sys.platform == "darwin" else 1024
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found["host_memory_bytes"] = used * unit
  stats = [device.memory_stats() or {} for device in jax.local_devices()]
  peaks = [s["peak_bytes_in_use"] for s in stats if "peak_bytes_in_use" in s]
  return {**found, "device_memory_bytes": max(peaks)} if peaks else found


def describe_memory() -> str:
  """`peak_memory` as a line to print; "" if nothing is known."""
  names = {"host_memory_bytes": "host", "device_memory_bytes": "device"}
  parts = [
    f"{names[key]} {used / 2**30:.2f} GiB"
    for key, used in peak_memory().items()
  ]
  return f"peak memory: {', '.join(parts)}" if parts else ""
