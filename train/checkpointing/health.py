"""The health of a run: dropped updates and spikes of the loss.

A learner drops an update whose loss or gradient is not finite and reports it
as its metric "dropped". The loop passes the metrics of every update to
`observe`. What `observe` remembers is saved with the state, so that a resumed
run decides exactly as a run that was never killed.
"""

import math
import statistics
from typing import Any, NamedTuple

DROPPED = "dropped"
# Standard deviation / median absolute deviation of a normal distribution.
_SIGMAS = 1.4826
# Relative to the median; otherwise any change of a constant loss is a spike.
_LEAST_SIGMA = 0.01


class Limits(NamedTuple):
  """The conditions under which a run rolls back; see `limits`."""

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
  """Sets when a run rolls back; the arguments are keys of config.recovery.

  Args:
    max_dropped: the greatest number of consecutive updates without a finite
      gradient before the run rolls back.
    spike: a loss or gradient norm is a spike if it exceeds the median of the
      previous `window` updates by this many standard deviations, which are
      estimated by the median absolute deviation; 0 disables the check.
    window: the number of updates that the median is taken over.
    around: the number of batches before and after the bad ones that are skipped
      as well.
    max_rollbacks: the number of rollbacks within `window` updates after which
      the run ends with an error.

  Raises:
    ValueError: a value is out of range.
  """
  found = Limits(max_dropped, spike, window, around, max_rollbacks)
  least = Limits(max_dropped=0, spike=0, window=4, around=0, max_rollbacks=0)
  for name, value in found._asdict().items():
    kinds = (int, float) if name == "spike" else int
    if isinstance(value, bool) or not isinstance(value, kinds):
      raise ValueError(f"{name}={value!r} is not a valid number")
    if not getattr(least, name) <= value < math.inf:
      raise ValueError(
        f"{name}={value!r} is less than {getattr(least, name)}, or infinite"
      )
  return found


class Health(NamedTuple):
  """The state of the checks after the updates so far.

  dropped: the number of updates dropped since the start of the run.
  in_a_row: the number dropped since the last update that was not.
  recent: the last values of each watched metric, oldest first.
  """

  dropped: float = 0
  in_a_row: int = 0
  recent: dict[str, list[float]] = {}


class Unwell(Exception):  # noqa: N818  (not an error of the code)
  """Raised when the run should roll back; updates `first` to `last` are bad."""

  def __init__(self, reason: str, first: int, last: int):
    """Updates are numbered by the step that they lead to."""
    super().__init__(f"{reason} at step {last}")
    self.first, self.last = first, last


def read(record: dict[str, Any]) -> Health:
  """Returns the Health in the record of a checkpoint."""
  return Health(**record.get("health", {}))


def observe(
  health: Health, limits: Limits, step: int, values: dict[str, float]
) -> Health:
  """Returns the Health after the update that led to `step`.

  Raises:
    Unwell: the run should roll back.
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
        f"train/{name} is {value} at step {step}; earlier checkpoints are kept"
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
      f"train/{name} rose to {value:.4g}, from a median of {median:.4g} and a"
      f" deviation of {sigma:.2g}",
      step,
      step,
    )
