"""Which example an example is mixed with, by mixup or CutMix.

A partner is one of all the training examples: its component is drawn by the
weights of the mixture, and then each of the component's examples is as likely
as any other. The draw is a function of the example's index and its epoch's key
alone. So it is the same on whatever host the example's row is, and at whatever
step a run goes on; and nobody but that host reads the partner.

Where bad records are skipped, a row whose partner is one is skipped as well.
"""

from collections.abc import Callable, Sequence

import numpy as np

from input_pipeline import order

# Keeps these draws from those of the order, which mixes the same keys.
_APART = np.uint64(0x5851F42D4C957F2D)


def drawer(
  lengths: Sequence[int], weights: np.ndarray
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
  """(indices int64 [n], keys uint64 [n]) -> the partners' indices, int64 [n].

  Args:
    lengths: examples of each component; an index counts through them.
    weights: int64, of mixture.whole_weights.
  """
  sizes = np.asarray(lengths, np.uint64)
  offsets = np.cumsum([0, *lengths[:-1]]).astype(np.uint64)
  ends = np.cumsum(weights).astype(np.uint64)

  def draw(indices: np.ndarray, keys: np.ndarray) -> np.ndarray:
    own = np.asarray(indices, np.int64).astype(np.uint64)
    first = order.mix(order.mix(np.asarray(keys, np.uint64) ^ _APART) ^ own)
    # The remainders favour no number by more than one part in 2**33.
    component = np.searchsorted(ends, first % ends[-1], side="right")
    within = order.mix(first) % sizes[component]
    return (offsets[component] + within).astype(np.int64)

  return draw
