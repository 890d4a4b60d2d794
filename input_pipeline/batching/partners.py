"""Chooses the examples that each example is mixed with, as in mixup or mosaic.

A partner is one of all the training examples: its component is sampled by the
weights of the mixture, then one of the component's examples uniformly. The
choice is a function of the example's index and its epoch's key alone. It is
therefore the same on every host and after every resume, and only the host that
holds the example reads the partner. An op with several partners draws each of
them in a sequence of its own.

If bad records are skipped, a row whose partner is bad is skipped as well.
"""

from collections.abc import Callable, Sequence

import numpy as np

from input_pipeline import order

# Makes these samples independent of the order, which mixes the same keys.
_APART = np.uint64(0x5851F42D4C957F2D)
# And those of several partners independent of one another.
_NTH = 0x9E3779B97F4A7C15


def drawer(
  lengths: Sequence[int], weights: np.ndarray, apart: int = int(_APART)
) -> Callable[..., np.ndarray]:
  """Returns (indices int64 [n], keys uint64 [n], nth=0) -> partners, int64 [n].

  The partners are given by their indices; `nth` counts the partners of a row.

  Args:
    lengths: the number of examples of each component; an index counts through
      them.
    weights: int64, the result of mixture.whole_weights.
    apart: below 2**64; different numbers make the draws independent.
  """
  sizes = np.asarray(lengths, np.uint64)
  offsets = np.cumsum([0, *lengths[:-1]]).astype(np.uint64)
  ends = np.cumsum(weights).astype(np.uint64)

  def draw(indices: np.ndarray, keys: np.ndarray, nth: int = 0) -> np.ndarray:
    key_apart = np.uint64((apart + nth * _NTH) % 2**64)
    own = np.asarray(indices, np.int64).astype(np.uint64)
    first = order.mix(order.mix(np.asarray(keys, np.uint64) ^ key_apart) ^ own)
    # The modulo favours no number by more than one part in 2**33.
    component = np.searchsorted(ends, first % ends[-1], side="right")
    within = order.mix(first) % sizes[component]
    return (offsets[component] + within).astype(np.int64)

  return draw
