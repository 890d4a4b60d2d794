"""The quick and the slow tier of the tests."""

from collections.abc import Iterable

import pytest


def slow_but(quick: Iterable, parameters: Iterable) -> list:
  """Parameters of a test; all but the quick ones are in the slow tier."""
  quick, slow = list(quick), pytest.mark.slow

  def one(p):
    return pytest.param(*(p if isinstance(p, tuple) else (p,)), marks=slow)

  return [p if p in quick else one(p) for p in parameters]
