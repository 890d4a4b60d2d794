"""Whether a run is well: updates that had to be dropped, losses that leap.

A learner drops an update whose loss or gradient is not finite, and says so in
its metric "dropped". The loop hands every update's metrics to `observe`; what
it keeps of them is saved with the state, so that a run that was killed and
resumed judges as if it had not been.
"""

import math
import statistics
from typing import Any, NamedTuple

DROPPED = "dropped"
# A normal distribution's standard deviation over its median absolute deviation.
_SIGMAS = 1.4826
# Of the median: a loss that hardly moves would else leap at every step.
_LEAST_SIGMA = 0.01


class Limits(NamedTuple):
  """When a run rolls back; see `limits`."""

  max_dropped: int
  spike: float
  window: int
  around: int
  max_rollbacks: int


def limits(
  *,
  max_dropped: int = 10,
  spike: float = 0.0,
  window: int = 100,
  around: int = 0,
  max_rollbacks: int = 3,
) -> Limits:
  """When a run rolls back: the keys of config.recovery.

  Args:
    max_dropped: so many updates in a row without a finite gradient are borne.
    spike: standard deviations above the median of the `window` updates before,
      estimated by the median absolute deviation, from which on a loss or a
      gradient norm is a spike; 0 looks for none.
    window: updates that the median is of.
    around: batches before and after the bad ones that are passed over as well.
    max_rollbacks: so many, within `window` updates of one another, are tried
      before the run gives up.

  Raises:
    ValueError: a value makes no sense.
  """
  found = Limits(max_dropped, spike, window, around, max_rollbacks)
  least = Limits(max_dropped=0, spike=0, window=4, around=0, max_rollbacks=0)
  for name, value in found._asdict().items():
    kinds = (int, float) if name == "spike" else int
    if isinstance(value, bool) or not isinstance(value, kinds):
      raise ValueError(f"{name}={value!r} is not a number of the right kind")
    if not getattr(least, name) <= value < math.inf:
      raise ValueError(
        f"{name}={value!r} is not {getattr(least, name)} or more"
      )
  return found


class Health(NamedTuple):
  """What is remembered of the updates so far.

  dropped: updates dropped since the start of the run.
  in_a_row: of them, those since the last that was not.
  recent: the last values, oldest first, of each metric that is watched.
  """

  dropped: float = 0
  in_a_row: int = 0
  recent: dict[str, list[float]] = {}


class Unwell(Exception):  # noqa: N818  (what is caught is no error of the code)
  """A run that should go back; `first` to `last` are the bad updates."""

  def __init__(self, reason: str, first: int, last: int):
    """Updates are named by the step that they lead to."""
    super().__init__(f"{reason} at step {last}")
    self.first, self.last = first, last


def read(record: dict[str, Any]) -> Health:
  """The Health that `_asdict` has put in a checkpoint's record."""
  return Health(**record.get("health", {}))


def observe(
  health: Health, limits: Limits, step: int, values: dict[str, float]
) -> Health:
  """The health after the update that led to `step`.

  Raises:
    Unwell: the run should go back.
    FloatingPointError: a metric is not finite though the update was kept.
  """
  if values.get(DROPPED, 0) > 0:
    in_a_row = health.in_a_row + 1
    if in_a_row > limits.max_dropped:
      reason = f"{in_a_row} updates in a row had no finite gradient"
      raise Unwell(reason, step - in_a_row + 1, step)
    dropped = health.dropped + values[DROPPED]
    return health._replace(dropped=dropped, in_a_row=in_a_row)
  for name, value in values.items():
    if not math.isfinite(value):
      raise FloatingPointError(
        f"train/{name} is {value} at step {step}; what was saved before stays"
      )
  if not limits.spike:
    return health._replace(in_a_row=0)
  recent = dict(health.recent)
  for name in filter(_is_watched, values):
    before = recent.get(name, [])
    if len(before) >= limits.window:
      _look_for_spike(name, values[name], before, limits, step)
    recent[name] = [*before, values[name]][-limits.window :]
  return health._replace(in_a_row=0, recent=recent)


def _is_watched(name: str) -> bool:
  return name.endswith(("loss", "grad_norm"))


def _look_for_spike(name, value, before, limits, step) -> None:
  median = statistics.median(before)
  deviation = statistics.median(abs(x - median) for x in before)
  sigma = max(_SIGMAS * deviation, _LEAST_SIGMA * abs(median))
  if value > median + limits.spike * sigma:
    raise Unwell(
      f"train/{name} leapt to {value:.4g}, from a median of {median:.4g} and a"
      f" deviation of {sigma:.2g}",
      step,
      step,
    )
