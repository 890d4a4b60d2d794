"""Distances between two samples of a feature, and their significance."""

from collections.abc import Sequence

import numpy as np

# The expected count of a cell that the chi-squared distribution requires.
_LEAST_EXPECTED = 5.0
_CELLS = 10
# The number of values up to which the exact distribution is fast to compute.
_FEW = 100


def cells(
  reference: np.ndarray, current: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the counts of two samples in the same cells, float64 [k] each.

  A value that makes up more than a tenth of both samples, or each value if
  there are few, has its own cell. The others fall into their deciles, and one
  cell counts missing values, NaN.
  """
  both = np.concatenate([reference, current])
  distinct, times = np.unique(both[~np.isnan(both)], return_counts=True)
  if len(distinct) <= 2 * _CELLS:
    own = distinct
  else:
    own = distinct[times > times.sum() / _CELLS]
  others = both[~np.isnan(both) & ~np.isin(both, own)]
  levels = np.linspace(0, 1, _CELLS + 1)[1:-1]
  edges = np.zeros(0)
  if len(others):
    edges = np.unique(np.quantile(others, levels, method="inverted_cdf"))

  def counted(sample: np.ndarray) -> np.ndarray:
    alone = np.isin(sample, own)
    spread = sample[~alone & ~np.isnan(sample)]
    found = np.bincount(
      np.searchsorted(edges, spread), minlength=len(edges) + 1
    )
    spikes = np.bincount(
      np.searchsorted(own, sample[alone]), minlength=len(own)
    )
    left = len(sample) - len(spread) - alone.sum()
    return np.concatenate([spikes, found, [left]]).astype(float)

  return _without_empty(counted(reference), counted(current))


def _without_empty(a: np.ndarray, b: np.ndarray):
  there = a + b > 0
  return a[there], b[there]


def population_stability(reference: np.ndarray, current: np.ndarray) -> float:
  """The population stability index of two tables of counts, [k] each.

  The sum of (q - p) ln(q / p) over the cells. An empty cell counts as half a
  record, since it would make the index infinite.
  """
  p = np.maximum(reference, 0.5) / max(reference.sum(), 1)
  q = np.maximum(current, 0.5) / max(current.sum(), 1)
  same = (reference == 0) & (current == 0)
  return float(((q - p) * np.log(q / p))[~same].sum())


def jensen_shannon(reference: np.ndarray, current: np.ndarray) -> float:
  """The Jensen–Shannon divergence of two tables of counts, 0 to 1 bit."""
  p = reference / max(reference.sum(), 1)
  q = current / max(current.sum(), 1)
  middle = (p + q) / 2

  def entropy(x: np.ndarray) -> float:
    x = x[x > 0]
    return float(-(x * np.log2(x)).sum())

  return max(0.0, entropy(middle) - (entropy(p) + entropy(q)) / 2)


def independence(reference: np.ndarray, current: np.ndarray) -> float:
  """Returns the p-value of the hypothesis that both have one distribution.

  The G-test: its statistic is the Jensen–Shannon divergence of the two, each
  weighted by its size, times 2 n ln 2. Rare cells are put together.
  """
  from scipy import stats

  table = np.stack([reference, current])
  table = table[:, np.argsort(-table.sum(0), kind="stable")]
  if not table.sum(1).all():
    return 1.0
  least = table.sum(0) * table.sum(1).min() / table.sum()
  rare = least < _LEAST_EXPECTED
  table = np.column_stack([table[:, ~rare], table[:, rare].sum(1)])
  least = table.sum(0) * table.sum(1).min() / table.sum()
  if 0 < least[-1] < _LEAST_EXPECTED and table.shape[1] > 2:
    table[:, -2] += table[:, -1]
    table = table[:, :-1]
  table = table[:, table.sum(0) > 0]
  if table.shape[1] < 2:
    return 1.0
  found = stats.chi2_contingency(
    table, correction=False, lambda_="log-likelihood"
  )
  return float(found.pvalue)


def kolmogorov_smirnov(
  reference: np.ndarray, current: np.ndarray
) -> tuple[float, float]:
  """Returns (distance of the distribution functions, its p-value)."""
  from scipy import stats

  a, b = reference[~np.isnan(reference)], current[~np.isnan(current)]
  if not len(a) or not len(b):
    return 0.0, 1.0
  few = max(len(a), len(b)) <= _FEW
  found = stats.ks_2samp(a, b, method="exact" if few else "asymp")
  return float(found.statistic), float(found.pvalue)


def holm(p_values: Sequence[float]) -> np.ndarray:
  """Returns p-values corrected for multiple tests by Holm, float64."""
  p = np.asarray(p_values, float)
  order = np.argsort(p, kind="stable")
  adjusted = np.empty(len(p))
  steps = p[order] * np.arange(len(p), 0, -1)
  adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
  return adjusted


def robust_scale(numbers: np.ndarray) -> tuple[float, float]:
  """Returns (median, robust standard deviation) of the finite values.

  The larger of 1.4826 times the median absolute deviation, and the
  interquartile range over 1.349: both are sigma where the law is normal.
  """
  x = numbers[np.isfinite(numbers)]
  if not len(x):
    return 0.0, 0.0
  low, middle, high = np.percentile(x, [25, 50, 75])
  deviation = 1.4826 * np.median(np.abs(x - middle))
  return float(middle), float(max(deviation, (high - low) / 1.349))
