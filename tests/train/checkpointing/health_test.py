"""When a run is unwell, by hand."""

import math

import numpy as np
import pytest

from train.checkpointing import health


def fed(values, **limits):
  """The health after losses, one a step, from step 1 on."""
  limits = health.limits(**limits)
  well = health.Health()
  for step, value in enumerate(values, 1):
    well = health.observe(well, limits, step, {"loss": value})
  return well


def test_a_leap_over_the_threshold_is_a_spike():
  # Median 2.5; absolute deviations 1.5, 0.5, 0.5, 1.5, so their median is 1.
  window = [1.0, 2.0, 3.0, 4.0]
  edge = 2.5 + 3 * 1.4826
  assert fed([*window, edge - 1e-3], window=4, spike=3).recent == {
    "loss": [2.0, 3.0, 4.0, edge - 1e-3]
  }
  with pytest.raises(health.Unwell, match="train/loss rose to 6.949") as found:
    fed([*window, edge + 1e-3], window=4, spike=3)
  assert (found.value.first, found.value.last) == (5, 5)


def test_one_outlier_does_not_hide_the_next():
  """The median stays; a mean and a standard deviation would not."""
  losses = [*np.linspace(3, 2, 19), 50.0, 2.0, 2.01, 1.99, 60.0]
  found = []
  limits = health.limits(window=16, spike=8)
  well = health.Health()
  for step, loss in enumerate(losses, 1):
    try:
      well = health.observe(well, limits, step, {"loss": loss})
    except health.Unwell as bad:
      found.append(bad.last)
  assert found == [20, 24]


def test_noise_and_descent_are_no_spikes():
  rng = np.random.default_rng(0)
  steps = np.arange(5000)
  losses = 2 + 5 * np.exp(-steps / 300) + 0.05 * rng.normal(size=5000)
  fed(losses.tolist(), spike=8)
  fed([2.0] * 300 + [2.01] * 10, spike=8)  # below a hundredth of the median


def test_only_losses_and_norms_of_gradients_are_watched():
  limits = health.limits(window=4, spike=3)
  well = health.Health()
  for step in range(1, 6):
    values = {"grad_norm": 1.0, "param_norm": 10.0**step, "a_loss": 0.5}
    well = health.observe(well, limits, step, values)
  assert sorted(well.recent) == ["a_loss", "grad_norm"]
  with pytest.raises(health.Unwell, match="grad_norm"):
    health.observe(well, limits, 6, {"grad_norm": 9.0})


def test_dropped_updates_are_counted_and_borne_for_a_while():
  limits = health.limits(max_dropped=2)
  well = health.Health()
  bad = {"loss": math.nan, "dropped": 1.0}
  good = {"loss": 1.0, "dropped": 0.0}
  for step, values in enumerate([good, bad, bad, good, bad, bad], 1):
    well = health.observe(well, limits, step, values)
  assert (well.dropped, well.in_a_row) == (4, 2)
  with pytest.raises(health.Unwell, match="3 updates in a row") as found:
    health.observe(well, limits, 7, bad)
  assert (found.value.first, found.value.last) == (5, 7)


def test_what_is_not_finite_and_was_not_dropped_ends_the_run():
  with pytest.raises(FloatingPointError, match="train/loss is inf at step 1;"):
    fed([math.inf])


def test_it_goes_through_a_record():
  well = fed([1.0, 2.0], spike=3)
  assert health.read({"health": well._asdict()}) == well
  assert health.read({}) == health.Health()


@pytest.mark.parametrize(
  "wrong",
  [{"spike": -1}, {"window": 3}, {"max_dropped": 1.5}, {"spike": math.nan}],
  ids=str,
)
def test_limits_that_make_no_sense_are_named(wrong):
  with pytest.raises(ValueError, match=next(iter(wrong))):
    health.limits(**wrong)
