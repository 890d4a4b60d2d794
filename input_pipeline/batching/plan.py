"""What a stream of rows is asked for: which rows, in which shapes."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Spec = dict[str, tuple[tuple[int, ...], np.dtype]]


class Plan(NamedTuple):
  """Which examples are this host's rows, by step.

  rows: (step) -> (indices of the real rows, key of each row's randomness);
    padding comes after the real rows.
  steps: how many, or None where training never ends.
  local_size: rows of this host in each batch, padding included.
  partner: (indices, keys) -> indices of what each row may be mixed with; None
    where nothing is, as in an evaluation.
  """

  rows: Callable[[int], tuple[np.ndarray, np.ndarray]]
  steps: int | None
  local_size: int
  partner: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
