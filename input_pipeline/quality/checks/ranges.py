"""Values outside of valid or plausible ranges."""

import numpy as np

from input_pipeline.quality import evidence, statistics
from input_pipeline.quality.dataset import Dataset, feature_columns
from input_pipeline.quality.finding import Finding, Settings, count, worst
from input_pipeline.reporting import page

ORDER = 30

# Robust standard deviations beyond which a value is more likely a typing error
# than the tail of a distribution.
_FAR = 30.0
# A placeholder such as 99999 is repeated, far above all other values.
_REPEATED, _APART = 5, 2.0


def ranges(data: Dataset, settings: Settings) -> list[Finding]:
  """Fails for values outside of a given range or infinite ones.

  Warns for implausible values: those more than 30 robust standard deviations
  from the median, and a number made of nines that is repeated far above all
  others.

  Raises:
    ValueError: a range is given for a field without numbers.
  """
  numbers = feature_columns(data)
  unknown = set(settings.ranges) - set(numbers)
  if unknown:
    raise ValueError(
      f"--ranges: {min(unknown)!r} is not a field of numbers (there are:"
      f" {', '.join(numbers) or 'none'})"
    )
  problems = []  # (field, what, rows, verdict)
  for field, values in numbers.items():
    problems += _impossible(field, values, settings.ranges.get(field))
    if field in data.columns and field not in settings.ranges:
      problems += _incredible(field, values)
  said = [f"{field!r}: {len(r):,} {what}" for field, what, r, _ in problems]
  line = "; ".join(said) or "no value is out of range or implausible"
  verdict = worst(*(each[-1] for each in problems))
  figures = {
    "problems": [
      {"field": field, "what": what, "records": len(rows)}
      for field, what, rows, _ in problems
    ]
  }
  parts = []
  if problems:
    rows = [
      (
        field,
        what,
        len(r),
        float(np.min(numbers[field][r])),
        float(np.max(numbers[field][r])),
      )
      for field, what, r, _ in problems
    ]
    columns = ("field", "problem", "records", "min", "max")
    parts.append(page.Table(columns, rows))
  for field, what, found, _ in problems:
    title = f"{field!r}: {what}, {count(len(found), 'record')}"
    notes = [f"{field} = {page.number(numbers[field][r])}" for r in found[:3]]
    parts += evidence.show(data, found[:3], title, notes)
  return [Finding("ranges", verdict, line, figures, parts)]


def _impossible(field: str, values: np.ndarray, given) -> list:
  problems = []
  infinite = np.flatnonzero(np.isinf(values))
  if len(infinite):
    problems.append((field, "infinite", infinite, "fail"))
  if given is not None:
    low, high = given
    out = np.flatnonzero((values < low) | (values > high))
    if len(out):
      what = f"not from {page.number(low)} to {page.number(high)}"
      problems.append((field, what, out, "fail"))
  return problems


def _incredible(field: str, values: np.ndarray) -> list:
  problems = []
  finite = values[np.isfinite(values)]
  if not len(finite):
    return problems
  top = finite.max()
  below = finite[finite < top]
  nines = set(f"{top:.0f}") == {"9"} and top >= 99
  repeated = np.flatnonzero(values == top)
  apart = len(below) and top >= _APART * max(below.max(), 1)
  if nines and apart and len(repeated) >= _REPEATED:
    what = f"times {top:.0f}, which may be a placeholder"
    problems.append((field, what, repeated, "warn"))
  middle, scale = statistics.robust_scale(values)
  if scale:
    with np.errstate(invalid="ignore"):
      far = np.abs(values - middle) > _FAR * scale
    rows = np.flatnonzero(far & np.isfinite(values))
    if len(rows):
      problems.append((field, "implausibly far from the median", rows, "warn"))
  return problems
