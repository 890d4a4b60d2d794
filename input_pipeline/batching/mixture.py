"""Mixes several data sets: assigns each position of the data to a component.

The components are the leaves of a binary tree, Huffman's (1952) on their
weights. Of the first p positions that reach a node, round(p * share) go to its
left child. Both the component of a position and the number of that component's
earlier positions therefore follow from the position alone: seeking is O(1), and
no state is kept.

Weights become integers, exactly if their sum permits (`whole_weights`). Over
the first N positions the count of a component then differs from share * N by
less than 2, and over any range of positions by less than 4: each node rounds by
at most 1/2, and an inner node has at most 2/3 of its parent, 1/2 + 2/3 (1/2 +
2/3 (...)) < 3/2. With two components the bounds are 1/2 and 1.

Component 0 is ordered as if it were alone, by the run's own seed, and the
others by seeds derived from it. Each component is visited epoch by epoch, with
every example once per epoch, at the rate given by its weight.
"""

import heapq
import math
import numbers
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from input_pipeline import order

# If the sum of the weights is below it, products of two do not overflow.
_MOST = 2**31 - 1
# The sum of the rounded weights, if the weights cannot be exact.
_ROUNDED = 2**30


class Tree(NamedTuple):
  """Nodes by number, the leaves first; a leaf is its own left child.

  weight, left_weight, left, right: int64 [2 k - 1], the weight of a node and of
    its left child, and the children's numbers.
  depth: the depth of the deepest leaf.
  """

  weight: np.ndarray
  left_weight: np.ndarray
  left: np.ndarray
  right: np.ndarray
  depth: int


def positive(value) -> bool:
  """Returns whether the value is a finite number above 0."""
  is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
  return is_number and math.isfinite(value) and value > 0


def whole_weights(
  weights: Sequence[float | None],
  lengths: Sequence[int],
  temperature: float | None = None,
) -> np.ndarray:
  """Returns the weights as integers, int64 [k].

  Given weights are interpreted as written: 0.1 is exactly a tenth. Without
  given weights, a component's weight is its number of examples, so that all
  components end their epochs together; with `temperature` T, it is that number
  to the power 1 / T (Devlin's multilingual BERT; T5, arXiv:1910.10683). Weights
  whose smallest integers exceed 2**31 are rounded to 2**-30 of their sum.

  Raises:
    ValueError: both are given, T is not positive, or the share of a component
      would be rounded to 0.
  """
  if temperature is not None and not positive(temperature):
    raise ValueError(f"temperature={temperature!r} is not a positive number")
  if temperature is not None and (len(weights) == 1 or None not in weights):
    raise ValueError("temperature needs a mixture without weights")
  if None not in weights:
    shares = [Fraction(str(weight)) for weight in weights]
  elif temperature is None:
    shares = [Fraction(int(n)) for n in lengths]
  else:
    most = max(lengths)
    shares = [Fraction((n / most) ** (1 / temperature)) for n in lengths]
  scale = math.lcm(*(share.denominator for share in shares))
  whole = [int(share * scale) for share in shares]
  divisor = math.gcd(*whole)
  whole = [n // divisor for n in whole] if divisor else whole
  if sum(whole) > _MOST:
    whole = _rounded(whole)
  for i, n in enumerate(whole):
    if n == 0:
      raise ValueError(
        f"mixture[{i}]: its weight is too small a share of the sum"
      )
  return np.array(whole, np.int64)


def _rounded(whole: list[int]) -> list[int]:
  """Returns integers that sum to _ROUNDED, by the largest remainder method."""
  total = sum(whole)
  floors = [n * _ROUNDED // total for n in whole]
  rest = [n * _ROUNDED % total for n in whole]
  by_rest = sorted(range(len(whole)), key=lambda i: (-rest[i], i))
  for i in by_rest[: _ROUNDED - sum(floors)]:
    floors[i] += 1
  return floors


def tree(weights: np.ndarray) -> Tree:
  """Returns Huffman's tree on integer weights whose sum is below 2**31."""
  count = len(weights)
  weight = [int(w) for w in weights]
  left, right = list(range(count)), list(range(count))
  depth = [0] * count
  heap = [(w, i) for i, w in enumerate(weight)]
  heapq.heapify(heap)
  while len(heap) > 1:
    two = heapq.heappop(heap), heapq.heappop(heap)
    # The heavier child goes left, and so gets the first position.
    (a, first), (b, second) = sorted(two, key=lambda x: (-x[0], x[1]))
    heapq.heappush(heap, (a + b, len(weight)))
    weight.append(a + b)
    left.append(first)
    right.append(second)
    depth.append(1 + max(depth[first], depth[second]))
  weight, left, right = (np.array(x, np.int64) for x in (weight, left, right))
  return Tree(weight, weight[left], left, right, depth[-1])


def choose(tree: Tree, position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns the component of each position, and its rank in the component.

  Args:
    tree: the tree of the weights.
    position: int64 [n], values from 0 to 2**62.

  Returns:
    component int64 [n], and nth int64 [n], the number of earlier positions of
    the same component.
  """
  nth = np.asarray(position, np.int64)
  node = np.full(nth.shape, len(tree.weight) - 1)
  for _ in range(tree.depth):
    weight, of_left = tree.weight[node], tree.left_weight[node]
    whole, rest = np.divmod(nth, weight)
    before = whole * of_left + (2 * rest * of_left + weight) // (2 * weight)
    rest += 1
    after = whole * of_left + (2 * rest * of_left + weight) // (2 * weight)
    goes_left = after > before
    nth = np.where(goes_left, before, nth - before)
    node = np.where(goes_left, tree.left[node], tree.right[node])
  return node, nth


def orderer(
  lengths: Sequence[int], weights: np.ndarray, seed: int, shuffle: bool
) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
  """Returns (positions int64 [n]) -> (indices int64 [n], keys uint64 [n]).

  An index counts through the concatenated components; the key is that of the
  current epoch of the example's component.

  Args:
    lengths: the number of examples of each component.
    weights: the result of whole_weights.
    seed: any integer.
    shuffle: if False, every epoch of a component is in its own order.
  """
  choice = tree(weights)
  offsets = np.cumsum([0, *lengths[:-1]])
  seeds = [seed] + [
    int(order.epoch_key(seed, np.array([-i]))[0])
    for i in range(1, len(lengths))
  ]

  def ordered(position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    component, nth = choose(choice, position)
    indices = np.zeros(nth.shape, np.int64)
    keys = np.zeros(nth.shape, np.uint64)
    for i in np.unique(component):
      rows = np.flatnonzero(component == i)
      n, own = lengths[i], nth[rows]
      indices[rows] = offsets[i] + order.indices(seeds[i], n, own, shuffle)
      keys[rows] = order.epoch_key(seeds[i], own // n)
    return indices, keys

  return ordered
