"""Odd sketches: the Jaccard similarity of sets from 261 bytes each.

Each bit of a sketch is the parity of the number of members that hash to it
(Mitzenmacher, Pagh and Pham, "Efficient estimation for high similarities using
odd sketches", WWW 2014). The exclusive or of two sketches is the sketch of the
symmetric difference, whose size is estimated from the number of ones; with the
sizes of the sets this gives the similarity. The estimate is best for similar
sets: at a similarity of 0.8 and up to 1,000 members the standard error is below
0.01, while that of 112 MinHash values is 0.04. It is exact if no two members of
the difference collide.

A small set has one sketch of 2,048 bits. A larger set has two sketches of 1,024
bits, which sample one of 2^level and one of 2^(level+1) members by their
hashes, so that sets of similar sizes have a level in common. The sketch of a
small set can be folded to 1,024 bits.
"""

from typing import NamedTuple

import numpy as np

BITS = 1_024
# Half of BITS, so that a set of twice the size still has level 0.
_SMALL = BITS // 2


class Sketches(NamedTuple):
  """Sketches of n sets.

  level: uint8 [n].
  sizes: uint16 [n, 2], the sampled members of both levels; equal for a small
    set.
  parity: uint8 [n, 2, BITS / 8].
  """

  level: np.ndarray
  sizes: np.ndarray
  parity: np.ndarray


def sketch(members: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
  """(level, sizes [2], parity [2, BITS / 8]) of distinct uint64 hashes.

  Uses the lower 32 bits of each.
  """
  low = (members & np.uint64(0xFFFFFFFF)).astype(np.uint32)
  if len(low) <= _SMALL:
    parity = _parity(low, 2 * BITS).reshape(2, -1)
    return 0, np.full(2, len(low), np.uint16), parity
  level = ((len(low) - 1) // BITS).bit_length()
  sizes = np.zeros(2, np.uint16)
  parity = np.zeros((2, BITS // 8), np.uint8)
  for i in range(2):
    # Sampled by other bits than those that choose the bit of the sketch.
    low = low[(low >> np.uint32(11)) % np.uint32(1 << (level + i)) == 0]
    sizes[i] = len(low)
    parity[i] = _parity(low, BITS)
  return level, sizes, parity


def _parity(values: np.ndarray, bits: int) -> np.ndarray:
  counts = np.bincount(values & np.uint32(bits - 1), minlength=bits)
  return np.packbits((counts & 1).astype(np.uint8))


def jaccard(sketches: Sketches, a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """float64 estimates for pairs of rows; 0 without a common level.

  Then one set has more than twice as many members, and the similarity is less
  than 0.5.
  """
  level = np.maximum(sketches.level[a], sketches.level[b])
  parity_a, size_a, small_a, known_a = _at_level(sketches, a, level)
  parity_b, size_b, small_b, known_b = _at_level(sketches, b, level)
  known = known_a & known_b
  ones_each = np.bitwise_count(parity_a ^ parity_b).sum(-1, dtype=np.int64)
  folded_a = np.where(small_a[:, None], *_fold(parity_a))
  folded_b = np.where(small_b[:, None], *_fold(parity_b))
  folded = np.bitwise_count(folded_a ^ folded_b).sum(-1, dtype=np.int64)
  both = small_a & small_b
  ones = np.where(both, ones_each.sum(-1), folded)
  bits = np.where(both, 2 * BITS, BITS)
  # If the difference is too large to estimate, half of the bits are ones.
  expected = -bits / 2 * np.log(np.maximum(1 - 2 * ones / bits, 1 / bits))
  # Two colliding members cancel, so the difference has two more per collision.
  size = size_a + size_b
  difference = np.minimum(ones + 2 * np.rint((expected - ones) / 2), size)
  return np.where(known, size - difference, 0) / np.maximum(
    size + difference, 1
  )


def _at_level(
  sketches: Sketches, rows: np.ndarray, level: np.ndarray
) -> tuple[np.ndarray, ...]:
  """(parities with that of `level` first, sizes, is small, has the level)."""
  small = (sketches.level[rows] == 0) & (sketches.sizes[rows, 0] <= _SMALL)
  step = level.astype(np.int64) - sketches.level[rows]
  known = step <= np.where(small, 0, 1)
  step = np.where(known, step, 0)
  parity = sketches.parity[rows]
  parity = np.where(step[:, None, None] == 1, parity[:, ::-1], parity)
  size = sketches.sizes[rows, step].astype(np.float64)
  return parity, size, small, known


def _fold(parity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """(the folded sketch of a small set, the first sketch of another)."""
  return parity[:, 0] ^ parity[:, 1], parity[:, 0]
