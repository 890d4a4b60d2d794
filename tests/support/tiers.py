"""The quick and the slow tier of the tests."""

from collections.abc import Iterable

import pytest


def slow_but(quick: Iterable, parameters: Iterable) -> list:
  """Parameters of a test; all but the quick ones are in the slow tier."""
  quick = list(quick)
  return [
    p if p in quick else pytest.param(p, marks=pytest.mark.slow)
    for p in parameters
  ]
