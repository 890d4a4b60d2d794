"""(seed, epoch, position) -> example index, by a stateless permutation.

The position in the data is a single increasing integer: position p belongs to
epoch p // n and is that epoch's example number p % n. Each epoch has its own
permutation, computed point by point, so that seeking is O(1) and the position
is the only state.

The permutation is a Feistel network (Luby and Rackoff, 1988) on the smallest
power of two that holds n, restricted to n by cycle walking (Black and Rogaway,
"Ciphers with arbitrary finite domains", 2002).
"""

from collections.abc import Sequence

import numpy as np

_ROUNDS = 6
# Halves of fewer than 3 bits have too few round functions to be random.
_MIN_HALF_BITS = 3
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def mix(x: np.ndarray) -> np.ndarray:
  """The finalizer of SplitMix64 (Steele et al., 2014); uint64 -> uint64."""
  x = x + _GOLDEN
  x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
  x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
  return x ^ (x >> np.uint64(31))


def epoch_key(seed: int, epoch: np.ndarray) -> np.ndarray:
  """Returns the uint64 key of each epoch; `epoch` is an integer array."""
  seed = np.asarray([seed % 2**64], np.uint64)
  return mix(mix(seed) ^ np.asarray(epoch, np.int64).astype(np.uint64))


def _feistel(x: np.ndarray, half_bits: int, keys: list[np.ndarray]):
  """Applies the network once; a permutation of 2 * half_bits bits."""
  shift = np.uint64(half_bits)
  low = np.uint64(2**half_bits - 1)
  left, right = x >> shift, x & low
  for key in keys:
    left, right = right, left ^ (mix(right ^ key) & low)
  return (left << shift) | right


def permute(position: np.ndarray, n: int, key: np.ndarray) -> np.ndarray:
  """Permutes positions of 0..n-1 by the permutation that `key` selects.

  Args:
    position: int64 array of values in [0, n).
    n: the size of the domain, 1 to 2**48.
    key: uint64 array that broadcasts to `position`.

  Returns:
    int64 array of the shape of `position`.
  """
  if not 1 <= n <= 2**48:
    raise ValueError(f"order: {n} examples, not 1 to 2**48")
  x = np.asarray(position, np.int64).astype(np.uint64)
  key = np.broadcast_to(np.asarray(key, np.uint64), x.shape)
  half_bits = max(_MIN_HALF_BITS, ((n - 1).bit_length() + 1) // 2)
  keys = [mix(key ^ np.uint64(r + 1)) for r in range(_ROUNDS)]
  x = _feistel(x, half_bits, keys)
  outside = np.flatnonzero(x >= n)
  while outside.size:
    x[outside] = _feistel(x[outside], half_bits, [k[outside] for k in keys])
    outside = outside[x[outside] >= n]
  return x.astype(np.int64)


def indices(
  seed: int, n: int, position: np.ndarray, shuffle: bool = True
) -> np.ndarray:
  """Returns the example indices at these positions in the data.

  Args:
    seed: any integer.
    n: number of examples, 1 to 2**48.
    position: int64 array of values from 0 to 2**62.
    shuffle: if False, every epoch is 0 .. n-1 in order.

  Returns:
    int64 of the shape of `position`; over each run of n positions from a
    multiple of n it is a permutation.
  """
  if n < 1:
    raise ValueError("order: there are no examples to order")
  epoch, within = position // n, position % n
  if not shuffle:
    return within
  return permute(within, n, epoch_key(seed, epoch))


def host_rows(
  batch_size: int, host_index: int | Sequence[int], host_count: int
) -> np.ndarray:
  """Returns the rows of every global batch that one host reads, ascending.

  Args:
    batch_size: of the global batch, which is cut into `host_count` shares.
    host_index: the host's share or shares; hosts that hold the same rows read
      the same share.
    host_count: the number of shares.

  Raises:
    ValueError: the batch cannot be cut evenly.
  """
  if batch_size % host_count:
    raise ValueError(
      f"batch_size {batch_size} is not divisible by {host_count} hosts"
    )
  shares = np.arange(batch_size).reshape(host_count, -1)
  return shares[np.sort(np.atleast_1d(host_index))].reshape(-1)
