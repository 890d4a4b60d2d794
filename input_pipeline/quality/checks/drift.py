"""Features whose distribution differs between two splits or over time."""

from typing import NamedTuple

import numpy as np

from input_pipeline.quality import dataset, statistics, words
from input_pipeline.quality.checks import distribution
from input_pipeline.quality.columns import Column
from input_pipeline.quality.dataset import Dataset
from input_pipeline.quality.finding import Finding, Settings, count, worst
from input_pipeline.reporting import page, plots

ORDER = 100
NEEDS = "against or --date"

# The usual interpretation of the population stability index: below 0.1 stable,
# from 0.25 another population; and thresholds for the Kolmogorov–Smirnov
# distance.
_SOME, _MUCH = 0.1, 0.25
_SOME_KS, _MUCH_KS = 0.1, 0.3
_WORDS = 100
_PERIODS = 8
_PANELS = 12


class Difference(NamedTuple):
  """The difference of one feature.

  psi: population stability index against the reference.
  js: Jensen–Shannon divergence in bits.
  ks: Kolmogorov–Smirnov distance; NaN for a category.
  p: the p-value of this feature alone.
  """

  feature: str
  psi: float
  js: float
  ks: float
  p: float


def drift(data: Dataset, settings: Settings) -> list[Finding]:
  """Compares data with data.against, and its later half with its earlier half.

  A feature drifts if the difference is significant by Holm's method over all
  features, and large: a population stability index of 0.1 or a
  Kolmogorov–Smirnov distance of 0.1 warns, and 0.25 or 0.3 fails.
  """
  findings = []
  if data.against is not None:
    names = dataset.titles(data)[::-1]
    findings.append(_compare(data.against, data, names, settings))
  if data.date:
    findings.append(_over_time(data, settings))
  return findings


def _over_time(data: Dataset, settings: Settings) -> Finding:
  dates = data.columns[data.date].numbers
  known = np.flatnonzero(~np.isnan(dates))
  if len(known) < 2 or dates[known].min() == dates[known].max():
    line = f"{data.date!r} has fewer than two different dates"
    return Finding("drift", "warn", line, {}, [])
  # Equal dates stay together, on the side that makes the halves more equal.
  middle = np.median(dates[known])
  late = dates >= middle if (dates[known] < middle).any() else dates > middle
  early = np.flatnonzero(~late & ~np.isnan(dates))
  halves = dataset.take(data, early), dataset.take(data, np.flatnonzero(late))
  names = f"earlier by {data.date}", f"later by {data.date}"
  found = _compare(*halves, names, settings)
  periods = _periods(data, dates, known, list(found.figures["features"])[:5])
  return found._replace(parts=[*found.parts, *periods])


def _periods(data: Dataset, dates, known, features: list[str]) -> list:
  """A plot of the stability index of each period against the first."""
  order = known[np.argsort(dates[known], kind="stable")]
  parts = [p for p in np.array_split(order, _PERIODS) if len(p)]
  sets = [dataset.take(data, part) for part in parts]
  lines = {}
  for feature in features:
    indices = [
      found.psi
      for each in sets[1:]
      for found in differences(sets[0], each)
      if found.feature == feature
    ]
    if len(indices) == len(sets) - 1 and indices:
      lines[feature] = (range(2, len(sets) + 1), indices)
  if not lines:
    return []
  drawn = plots.lines(
    lines, "Drift from the first period", "period", "population stability index"
  )
  said = (
    f"{len(sets)} periods with equal numbers of records, in the order of"
    f" {data.date}."
  )
  return [page.Figure(drawn, said)]


def differences(reference: Dataset, current: Dataset) -> list[Difference]:
  """The differences of the features that both have, in order of the fields."""
  found = []
  mine = dataset.feature_columns(current)
  for name, values in dataset.feature_columns(reference).items():
    if name in mine and len(values) and len(mine[name]):
      found.append(_numbers(name, values, mine[name]))
  categories = dataset.category_columns(current)
  for name, column in dataset.category_columns(reference).items():
    if name in categories:
      counts = _counts(column, categories[name])
      found.append(_cells(name, *counts))
  return found


def _numbers(name: str, a: np.ndarray, b: np.ndarray) -> Difference:
  found = _cells(name, *statistics.cells(a, b))
  ks, p = statistics.kolmogorov_smirnov(a, b)
  # Two tests of one feature, so Bonferroni's correction applies.
  return found._replace(ks=ks, p=min(1.0, 2 * min(p, found.p)))


def _cells(name: str, a: np.ndarray, b: np.ndarray) -> Difference:
  return Difference(
    name,
    statistics.population_stability(a, b),
    statistics.jensen_shannon(a, b),
    float("nan"),
    statistics.independence(a, b),
  )


def _counts(a: Column, b: Column) -> tuple[np.ndarray, np.ndarray]:
  """Counts of each word and of missing values in both; float64 [words + 1]."""
  words_of = dict.fromkeys((*a.words, *b.words))
  places = {word: i for i, word in enumerate(words_of)}

  def counted(column: Column) -> np.ndarray:
    at = np.array([*(places[w] for w in column.words), len(places)], np.int64)
    return np.bincount(at[column.codes], minlength=len(places) + 1).astype(
      float
    )

  x, y = counted(a), counted(b)
  return x[x + y > 0], y[x + y > 0]


def verdicts(found: list[Difference], settings: Settings) -> list[str]:
  """The verdict of each feature, among all of them."""
  sure = statistics.holm([each.p for each in found])
  return [_verdict(*pair, settings) for pair in zip(found, sure, strict=True)]


def word_differences(reference: Dataset, current: Dataset) -> list[Difference]:
  """Differences in the numbers of texts with the 100 most frequent words."""
  found = []
  for field, column in reference.columns.items():
    other = current.columns.get(field)
    if column.kind != "text" or other is None or other.kind != "text":
      continue
    vocabulary = words.common([reference, current], field, _WORDS)
    a = words.presence(reference, field, vocabulary)
    b = words.presence(current, field, vocabulary)
    for i, word in enumerate(vocabulary):
      with_it = a[:, i].sum(), b[:, i].sum()
      counts = [
        np.array([n, len(x) - n], float)
        for n, x in zip(with_it, (a, b), strict=True)
      ]
      found.append(_cells(f"{field}: contains {word!r}", *counts))
  return found


def _compare(
  reference: Dataset, current: Dataset, names, settings: Settings
) -> Finding:
  found = differences(reference, current)
  found += word_differences(reference, current)
  sure = statistics.holm([each.p for each in found])
  rows = sorted(
    zip(found, sure, strict=True),
    key=lambda pair: (_verdict(*pair, settings) == "ok", -pair[0].psi),
  )
  verdicts = {each.feature: _verdict(each, p, settings) for each, p in rows}
  drifted = [each for each, _ in rows if verdicts[each.feature] != "ok"]
  little = sum(p < settings.level for _, p in rows) - len(drifted)
  line = (
    f"{names[1]} against {names[0]}: none of {count(len(found), 'feature')}"
    " drifts"
  )
  if drifted:
    most = ", ".join(f"{d.feature} (PSI {d.psi:.3f})" for d in drifted[:4])
    line = (
      f"{names[1]} against {names[0]}: {len(drifted)} of"
      f" {count(len(found), 'feature')} drift: {most}"
    )
  if little:
    line += f"; {little} differ significantly but little"
  figures = {
    "level": settings.level,
    "drifted": [each.feature for each in drifted],
    "features": {
      each.feature: {**_figures(each), "p_holm": float(p)} for each, p in rows
    },
  }
  parts = _parts(reference, current, names, rows, verdicts)
  verdict = worst(*verdicts.values())
  return Finding("drift", verdict, line, figures, parts)


def _figures(found: Difference) -> dict:
  figures = found._asdict()
  figures.pop("feature")
  return {k: v for k, v in figures.items() if v == v}


def _verdict(found: Difference, p: float, settings: Settings) -> str:
  if p >= settings.level:
    return "ok"
  ks = 0.0 if np.isnan(found.ks) else found.ks
  if found.psi >= _MUCH or ks >= _MUCH_KS:
    return "fail"
  return "warn" if found.psi >= _SOME or ks >= _SOME_KS else "ok"


def _parts(reference, current, names, rows, verdicts) -> list:
  if not rows:
    return [page.Text("There are no features to compare.")]
  table = page.Table(
    (
      "feature",
      "PSI",
      "Jensen–Shannon (bits)",
      "Kolmogorov–Smirnov",
      "p, Holm",
      "verdict",
    ),
    [
      (
        each.feature,
        each.psi,
        each.js,
        each.ks,
        float(p),
        verdicts[each.feature],
      )
      for each, p in rows
    ],
    "p is adjusted by Holm's method for the number of features.",
  )
  a, b = map(dataset.feature_columns, (reference, current))
  panels = []
  for each, _ in rows:
    if each.feature in a and len(panels) < _PANELS:
      both = np.concatenate([a[each.feature], b[each.feature]])
      if np.unique(both[np.isfinite(both)]).size < 2:
        continue
      edges = distribution.edges_of(both)
      counts = {
        names[0]: distribution.histogram(a[each.feature], edges)[0],
        names[1]: distribution.histogram(b[each.feature], edges)[0],
      }
      panels.append((each.feature, counts, edges))
  parts = [table]
  if panels:
    said = "The features that differ most, as shares of each data set."
    parts.append(page.Figure(plots.histograms(panels), said))
  return [*parts, *_bars(reference, current, names, rows)]


def _bars(reference, current, names, rows) -> list:
  a, b = map(dataset.category_columns, (reference, current))
  parts = []
  for each, _ in rows:
    if each.feature not in a or len(parts) == 3:
      continue
    x, y = a[each.feature], b[each.feature]
    words_of = list(dict.fromkeys((*x.words, *y.words)))
    shares = []
    for column in (x, y):
      counts = np.bincount(
        column.codes[column.codes >= 0], minlength=len(column.words)
      )
      known = dict(zip(column.words, counts, strict=True))
      n = max(int(counts.sum()), 1)
      shares.append([known.get(w, 0) / n for w in words_of])
    order = np.argsort(-np.add(*shares), kind="stable")[:12]
    series = {
      name: [side[i] for i in order]
      for name, side in zip(names, shares, strict=True)
    }
    labels = [words_of[i] for i in order]
    drawn = plots.bars(labels, series, each.feature, "share")
    parts.append(page.Figure(drawn, f"{each.feature}, PSI {each.psi:.3f}."))
  return parts
