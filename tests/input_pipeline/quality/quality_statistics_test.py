"""Measures of drift against scipy, published values and formulas by hand."""

import math

import numpy as np
import pytest
from scipy import stats
from scipy.spatial import distance

from input_pipeline.quality import statistics

A, B = np.array([10.0, 20, 70]), np.array([25.0, 25, 50])


def test_population_stability_by_hand():
  by_hand = 0.15 * math.log(2.5) + 0.05 * math.log(1.25) - 0.2 * math.log(5 / 7)
  assert statistics.population_stability(A, B) == pytest.approx(by_hand)
  assert statistics.population_stability(A, A * 3) == pytest.approx(0)


def test_an_empty_cell_counts_half_a_record():
  found = statistics.population_stability(
    np.array([100.0, 0]), np.array([50.0, 50])
  )
  by_hand = -0.5 * math.log(0.5) + 0.495 * math.log(100)
  assert found == pytest.approx(by_hand)


def test_jensen_shannon_is_scipys():
  expected = distance.jensenshannon(A, B, base=2) ** 2
  assert statistics.jensen_shannon(A, B) == pytest.approx(expected)
  apart = statistics.jensen_shannon(np.array([5.0, 0]), np.array([0, 9.0]))
  assert apart == pytest.approx(1)


def test_the_g_test_is_the_jensen_shannon_divergence():
  # Of two sides of one size, G is 2 N ln 2 times the divergence in bits.
  n = A.sum() + B.sum()
  g = 2 * n * math.log(2) * statistics.jensen_shannon(A, B)
  expected = stats.chi2.sf(g, df=2)
  assert statistics.independence(A, B) == pytest.approx(expected)


def test_rare_cells_are_put_together():
  a = np.array([50.0, 50, 1, 2, 0, 3])
  b = np.array([60.0, 40, 2, 0, 1, 2])
  pooled = np.array([[50.0, 50, 6], [60, 40, 5]])
  expected = stats.chi2_contingency(
    pooled, correction=False, lambda_="log-likelihood"
  ).pvalue
  assert statistics.independence(a, b) == pytest.approx(expected)


def test_nothing_to_compare_is_no_evidence():
  empty = np.zeros(2)
  assert statistics.independence(A[:2], empty) == 1
  assert statistics.independence(A[:1], B[:1]) == 1
  assert statistics.kolmogorov_smirnov(np.array([np.nan]), A) == (0.0, 1.0)


def test_kolmogorov_smirnov_by_hand():
  a, b = np.array([1.0, 2, 3, 4]), np.array([3.0, 4, 5, 6, np.nan])
  distance, p = statistics.kolmogorov_smirnov(a, b)
  assert distance == pytest.approx(0.5)
  assert p > 0.3


def test_holms_own_order():
  # The usual worked example: .005 x 4, .01 x 3, .03 x 2, then not less.
  found = statistics.holm([0.01, 0.04, 0.03, 0.005])
  assert found == pytest.approx([0.03, 0.06, 0.06, 0.02])
  assert statistics.holm([0.9, 0.8]).max() == 1
  assert len(statistics.holm([])) == 0


def test_cells_hold_each_record_once():
  random = np.random.default_rng(0)
  a = random.normal(size=1000)
  b = random.normal(1, size=500)
  a[:7] = np.nan
  x, y = statistics.cells(a, b)
  assert (x.sum(), y.sum()) == (1000, 500)
  # Deciles of both together, and the missing ones.
  assert len(x) == 11
  assert (x[-1], y[-1]) == (7, 0)
  together = (x + y)[:-1]
  assert together.max() - together.min() <= 1


def test_few_values_are_cells_themselves():
  x, y = statistics.cells(
    np.array([0.0, 0, 0, 5]), np.array([0.0, 5, 5, np.nan])
  )
  assert x.tolist() == [3, 1, 0]
  assert y.tolist() == [1, 2, 1]


def test_a_spike_does_not_swallow_its_neighbours():
  # Nine tenths zeros: the rest must still be told apart.
  spike = np.zeros(900)
  a = np.concatenate([spike, np.arange(100) + 1.0])
  b = np.concatenate([spike, np.arange(100) + 1001.0])
  assert statistics.independence(*statistics.cells(a, b)) < 1e-6


def test_p_values_of_the_same_law_are_uniform():
  random = np.random.default_rng(1)
  p = [
    statistics.independence(
      *statistics.cells(random.gamma(2, size=800), random.gamma(2, size=500))
    )
    for _ in range(400)
  ]
  assert stats.kstest(p, "uniform").pvalue > 0.01


def test_robust_scale_of_a_normal_law():
  x = np.random.default_rng(2).normal(5, 2, 100_000)
  x[:1000] = 1e9
  middle, scale = statistics.robust_scale(x)
  assert middle == pytest.approx(5, abs=0.05)
  assert scale == pytest.approx(2, rel=0.03)
  assert statistics.robust_scale(np.array([np.nan])) == (0, 0)
