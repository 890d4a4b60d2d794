"""The lines that a run prints."""

import pytest

from train.workdir import terminal


@pytest.mark.parametrize(
  ("seconds", "text"),
  [(0.4, "0:00"), (9.5, "0:10"), (119.6, "2:00"), (3599.4, "59:59")],
)
def test_time_left_has_no_sixtieth_second(seconds, text):
  assert terminal.minutes_seconds(seconds) == text
