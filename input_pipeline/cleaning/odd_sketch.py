"""The Jaccard similarity of sets from 256 bytes each: odd sketches.

A sketch is the parity, bit by bit, of how many members of a set fall on each
of 1,024 bits (Mitzenmacher, Pagh and Pham, "Efficient estimation for high
similarities using odd sketches", WWW 2014). The exclusive or of two is the
sketch of their symmetric difference, whose size follows from its ones; with
the sets' own sizes that gives the similarity. Of sets that are much alike the
difference is small and little is lost: at a similarity of 0.8 and 500 members
the standard error is 0.01, where 112 MinHash values have 0.04.

Of a set larger than the sketch only each 2^level-th member counts, by its
hash. Sets of like size may lie on neighbouring levels, so that a sketch holds
two: of its own level and of the next.
"""

from typing import NamedTuple

import numpy as np

BITS = 1_024
BYTES = 2 * BITS // 8


class Sketches(NamedTuple):
  """Sketches of n sets.

  level: uint8 [n]. sizes: uint16 [n, 2], members counted on either level.
  parity: uint8 [n, 2, BITS / 8].
  """

  level: np.ndarray
  sizes: np.ndarray
  parity: np.ndarray


def sketch(members: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
  """(level, sizes [2], parity [2, BITS / 8]) of distinct uint64 hashes.

  Uses the lower 32 bits of each.
  """
  level = max(0, (max(1, len(members)) - 1) // BITS).bit_length()
  sizes = np.zeros(2, np.uint16)
  parity = np.zeros((2, BITS // 8), np.uint8)
  sampled = (members & np.uint64(0xFFFFFFFF)).astype(np.uint32)
  for i in range(2):
    mask = np.uint32((1 << (level + i)) - 1)
    sampled = sampled[(sampled >> np.uint32(10)) & mask == 0]
    counts = np.bincount(sampled & np.uint32(BITS - 1), minlength=BITS)
    sizes[i] = len(sampled)
    parity[i] = np.packbits(counts & 1)
  return level, sizes, parity


def jaccard(sketches: Sketches, a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """float64 estimates for pairs of rows; 0 where sizes differ fourfold."""
  level_a = sketches.level[a].astype(np.int64)
  level_b = sketches.level[b].astype(np.int64)
  level = np.maximum(level_a, level_b)
  near = np.abs(level_a - level_b) <= 1
  of_a = np.where(near, level - level_a, 0)
  of_b = np.where(near, level - level_b, 0)
  parity = sketches.parity[a, of_a] ^ sketches.parity[b, of_b]
  ones = np.bitwise_count(parity).sum(-1, dtype=np.int64)
  size = sketches.sizes[a, of_a].astype(np.float64) + sketches.sizes[b, of_b]
  # Half of the bits are ones where the difference is too large to measure.
  open_bits = np.maximum(1 - 2 * ones / BITS, 1 / BITS)
  difference = np.minimum(-BITS / 2 * np.log(open_bits), size)
  shared = np.where(near, size - difference, 0)
  return shared / np.maximum(size + difference, 1)
