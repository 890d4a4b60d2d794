"""Records with values far from all others."""

import numpy as np

from input_pipeline.quality import evidence, statistics
from input_pipeline.quality.dataset import Dataset, feature_columns
from input_pipeline.quality.finding import Finding, Settings, count
from input_pipeline.reporting import page

ORDER = 110

_SKEWED = 1.0
_SHOWN = 12


def outliers(data: Dataset, settings: Settings) -> list[Finding]:
  """Warns for values beyond `settings.outlier` robust standard deviations.

  A nonnegative feature that is skewed to the right is judged by its logarithm.
  A feature of which more than half has one value has no scale and is skipped.
  The share of a kind of characters must also be far in their number where that
  is nearly constant: of sentences with one capital each, a short one has the
  largest share.
  """
  flagged = {}
  skipped = []
  worst = np.zeros(len(data.indices))
  why = np.full(len(data.indices), "", object)
  features = feature_columns(data)
  for name, values in features.items():
    z, scaled = scores(values)
    if not scaled:
      skipped.append(name)
      continue
    far = np.abs(z) > settings.outlier
    far &= _far_in_number(name, features, settings.outlier)
    if far.any():
      flagged[name] = int(far.sum())
    for row in np.flatnonzero(far & (np.abs(z) > worst)):
      worst[row] = abs(z[row])
      why[row] = f"{name} = {page.number(float(values[row]))}"
  rows = np.flatnonzero(worst)
  line = f"no value beyond {settings.outlier:g} robust standard deviations"
  if len(rows):
    most = sorted(flagged.items(), key=lambda item: (-item[1], item[0]))
    few = ", ".join(f"{name!r} {times:,}" for name, times in most[:4])
    line = (
      f"{count(len(rows), 'record')} beyond {settings.outlier:g} robust"
      f" standard deviations: {few}; the most extreme is"
      f" {data.name(rows[np.argmax(worst[rows])])}"
    )
  parts = []
  if flagged:
    parts.append(page.Table(("feature", "records"), [*flagged.items()]))
    top = rows[np.argsort(-worst[rows], kind="stable")][:_SHOWN]
    notes = [f"{why[row]}\n{worst[row]:.1f} deviations" for row in top]
    parts += evidence.show(data, top, "The most extreme records", notes)
  if skipped:
    text = "Not judged, as more than half of the values are equal: "
    parts.append(page.Text(text + ", ".join(skipped)))
  figures = {"records": len(rows), "features": flagged, "not_judged": skipped}
  verdict = "warn" if len(rows) else "ok"
  return [Finding("outliers", verdict, line, figures, parts)]


def _far_in_number(
  name: str, features: dict[str, np.ndarray], most: float
) -> np.ndarray | bool:
  """Where the number of characters behind a share is far from its median.

  True for other features, and where the number varies by more than 1.
  """
  field, _, feature = name.rpartition(": ")
  lengths = features.get(f"{field}: characters")
  if lengths is None or feature == "characters":
    return True
  numbers = features[name] * lengths
  middle, scale = statistics.robust_scale(numbers)
  return True if scale > 1 else np.abs(numbers - middle) > most


def scores(values: np.ndarray) -> tuple[np.ndarray, bool]:
  """(robust z-scores, 0 if not finite; whether there is a scale)."""
  from scipy import stats

  x = np.asarray(values, np.float64)
  finite = np.isfinite(x)
  there = x[finite]
  z = np.zeros(len(x))
  if len(there) < 10 or there.min() == there.max():
    return z, False
  if there.min() >= 0 and stats.skew(there) > _SKEWED:
    there = np.log1p(there)
  middle, scale = statistics.robust_scale(there)
  if not scale:
    return z, False
  z[finite] = (there - middle) / scale
  return z, True
