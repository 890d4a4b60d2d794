"""The distribution of each feature."""

import numpy as np

from input_pipeline.quality.dataset import (
  Dataset,
  category_columns,
  feature_columns,
)
from input_pipeline.quality.finding import Finding, Settings, count
from input_pipeline.reporting import page, plots

ORDER = 90

_BINS = 30
_PANELS = 30
_CATEGORIES = 12


def distribution(data: Dataset, settings: Settings) -> list[Finding]:
  """Shows histograms and moments, and warns for constant fields."""
  del settings
  numbers = feature_columns(data)
  moments = {name: _moments(values) for name, values in numbers.items()}
  moments = {name: found for name, found in moments.items() if found}
  categories = category_columns(data)
  constant = [
    name
    for name, found in moments.items()
    if name in data.columns
    and found["least"] == found["most"]
    and len({*data.columns[name].extremes}) < 2  # float64 rounds integers
  ]
  constant += [
    name
    for name, column in categories.items()
    if len(column.words) == 1 and name != data.label
  ]
  constant = constant if len(data.indices) > 1 else []
  line = (
    f"{count(len(moments), 'numeric feature')},"
    f" {count(len(categories), 'category', 'categories')}"
  )
  if constant:
    line += f"; constant: {', '.join(map(repr, constant))}"
  categories.pop(data.label, None)  # `balance` shows it.
  parts = _numeric(moments, numbers) + _categorical(categories)
  figures = {"moments": moments, "constant": constant}
  verdict = "warn" if constant else "ok"
  return [Finding("distribution", verdict, line, figures, parts)]


def _moments(values: np.ndarray) -> dict[str, float]:
  from scipy import stats

  x = values[np.isfinite(values)].astype(np.float64)
  if not len(x):
    return {}
  varied = x.std() > 1e-12 * max(1.0, abs(x.mean()))
  low, middle, high = np.percentile(x, [25, 50, 75])
  return {
    "records": len(x),
    "mean": float(x.mean()),
    "deviation": float(x.std()),
    "skewness": float(stats.skew(x)) if varied else 0.0,
    "kurtosis": float(stats.kurtosis(x)) if varied else 0.0,
    "least": float(x.min()),
    "25 %": float(low),
    "median": float(middle),
    "75 %": float(high),
    "most": float(x.max()),
  }


def _numeric(moments: dict, numbers: dict) -> list:
  if not moments:
    return []
  names = tuple(next(iter(moments.values())))
  rows = [(name, *found.values()) for name, found in moments.items()]
  note = "Kurtosis is 0 for a normal distribution."
  names = [{"least": "min", "most": "max"}.get(name, name) for name in names]
  parts = [page.Table(("feature", *names), rows, note)]
  varied = [n for n, found in moments.items() if found["least"] < found["most"]]
  panels = [(name, *histogram(numbers[name])) for name in varied[:_PANELS]]
  said = (
    "The first and last bins include values below the 0.1 % quantile and above"
    " the 99.9 % quantile."
  )
  if len(varied) > _PANELS:
    said += f" The first {_PANELS} of {len(varied)} features are shown."
  if not panels:
    return parts
  return [*parts, page.Figure(plots.histograms(panels), said)]


def edges_of(values: np.ndarray) -> np.ndarray:
  """Edges of the bins of a histogram; between integers for integers."""
  x = values[np.isfinite(values)]
  if not len(x):
    return np.array([0.0, 1.0])
  low, high = np.quantile(x, [0.001, 0.999])
  whole = bool((x == np.floor(x)).all())
  if whole and high - low < 2**31:
    # Equally many integers in each bin, or the bins would create a pattern.
    low, high = np.floor(low), np.ceil(high)
    step = max(1, np.ceil((high - low + 1) / (2 * _BINS)))
    return np.arange(low, high + step + 1, step) - 0.5
  if low == high:
    low, high = low - 0.5, high + 0.5
  return np.linspace(low, high, _BINS + 1)


def histogram(
  values: np.ndarray, edges: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
  """(counts, edges); the first and last bins include what lies outside."""
  edges = edges_of(values) if edges is None else edges
  x = np.clip(values[np.isfinite(values)], edges[0], edges[-1])
  return np.histogram(x, edges)[0], edges


def _categorical(categories: dict) -> list:
  parts = []
  rows = []
  for name, column in categories.items():
    counts = np.bincount(
      column.codes[column.codes >= 0], minlength=len(column.words)
    )
    order = np.argsort(-counts, kind="stable")[:_CATEGORIES]
    top = ", ".join(f"{column.words[i]} {counts[i]:,}" for i in order[:3])
    rows.append((name, len(column.words), top))
    if len(column.words) > 1:
      drawn = plots.bars(
        [column.words[i] for i in order],
        counts[order].tolist(),
        name,
        "records",
      )
      left = len(column.words) - len(order)
      said = f"{name}; {left:,} more values." if left else name
      parts.append(page.Figure(drawn, said))
  if rows:
    parts.insert(0, page.Table(("field", "values", "most frequent"), rows))
  return parts
