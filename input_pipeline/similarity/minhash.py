"""MinHash signatures of sets, and their bands for locality-sensitive hashing.

Two sets of Jaccard similarity s have an equal value in a place of their
signatures with probability s (Broder, 1997). They share a band, and so become
candidates, with probability 1 - (1 - s^rows)^bands (Indyk and Motwani, 1998).
"""

from collections.abc import Iterable, Iterator

import numpy as np

from input_pipeline.similarity.text_hashes import library

# The permutations' seed: part of the meaning of a verdict.
_SEED = 1
# Hashes whose permuted values are held at once.
_CHUNK = 8_192


def signatures(
  sets: Iterable[np.ndarray], num_perm: int
) -> Iterator[np.ndarray]:
  """MinHash values, uint32 [num_perm], of sets of uint64 hashes.

  The values are datasketch's ("affine32", seed 1), of the upper 32 bits of
  each hash.
  """
  minhash = library("datasketch").MinHash
  empty = minhash(num_perm, seed=_SEED, hashfunc=int, scheme="affine32")
  for members in sets:
    values = (members >> np.uint64(32)).tolist()
    found = empty.copy()
    for start in range(0, len(values), _CHUNK):
      found.update_batch(values[start : start + _CHUNK])
    yield found.hashvalues


def bands(values: np.ndarray, count: int) -> list[int]:
  """64 bits of xxHash for each of `count` bands of a signature."""
  digest = library("xxhash").xxh3_64_intdigest
  rows = values.astype("<u4").reshape(count, -1)
  return [digest(row.tobytes()) for row in rows]
