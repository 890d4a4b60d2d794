"""The plan of a stream of rows: which rows each step has."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Plan(NamedTuple):
  """Which examples are this host's rows, by step.

  rows: (step) -> (indices of the real rows, key of each row's randomness);
    padding comes after the real rows.
  steps: the number of steps, or None if the stream is endless.
  local_size: the number of rows of this host in each batch, including padding.
  partner: (indices, keys, nth) -> indices of the examples that the rows may be
    mixed with, which are the nth partner of each; None if rows are not mixed,
    as in an evaluation.
  length: (step) -> the size of the axis of time in that step; None if every
    step has the whole axis.
  """

  rows: Callable[[int], tuple[np.ndarray, np.ndarray]]
  steps: int | None
  local_size: int
  partner: Callable[..., np.ndarray] | None = None
  length: Callable[[int], int] | None = None
