"""N-gram language models with interpolated Kneser-Ney smoothing.

Over the ids of a tokenizer, as Chen and Goodman ("An empirical study of
smoothing techniques for language modeling", 1999, section 3) write it: with h
the n - 1 ids before w, h' those without the first of them,

  p(w | h) = max(c(hw) - D, 0) / c(h.) + D N(h.) / c(h.) p(w | h')

where c(hw) is a count, N(h.) is the number of different w that follow h, and D
is n1 / (n1 + 2 n2) for each order (Ney et al., 1994). Below the highest order
c(hw) is the number of different ids that precede hw; below the lowest order the
probability is 1 / V. If h was never seen, p(w | h) = p(w | h'). A document is
preceded by n - 1 marks of a beginning, which are never predicted. Its end is
not marked, unless by its ids.

The n-grams of each order are numbered in the order of their keys. A key is the
number of the first n - 1 ids times V + 1, plus the last id, so that keys of any
order are exact in 64 bits.
"""

import itertools
import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from input_pipeline.tokenizers import Tokenizer

# A limit on what a file can demand, far beyond useful orders.
MAX_ORDER = 32
# Where no n-gram of an order was seen once, the estimate of D is 0, and what
# was not seen would be impossible.
_FALLBACK = 0.5
# Ids that are looked up at once.
_CHUNK = 2**16
# The number of n-grams above which lookups in ascending order are 3x as fast.
_OUTSIDE_THE_CACHE = 2**20


class NGram(NamedTuple):
  """A model; element k of each tuple belongs to the n-grams of k + 1 ids.

  vocab_size: V; the id V marks a beginning.
  keys: int64 [n], ascending; see above.
  counts: int64 [n], c(hw): 0 where the last id marks a beginning.
  totals, types: int64 [those of one id less], c(h.) and N(h.).
  discounts: D of each order, in (0, 1].
  """

  vocab_size: int
  keys: tuple[np.ndarray, ...]
  counts: tuple[np.ndarray, ...]
  totals: tuple[np.ndarray, ...]
  types: tuple[np.ndarray, ...]
  discounts: tuple[float, ...]

  @property
  def order(self) -> int:
    """The number of ids in the longest n-grams."""
    return len(self.keys)


def fit(
  documents: Iterable[np.ndarray],
  order: int,
  vocab_size: int,
  discount: float | None = None,
) -> NGram:
  """Fits a model to documents held in memory, with about 60 bytes per id.

  Args:
    documents: the ids of each document, from 0 to vocab_size - 1.
    order: n, from 1 to MAX_ORDER.
    vocab_size: V.
    discount: D of every order, in (0, 1]; None estimates each.

  Raises:
    ValueError: there are no ids, an id is not in the vocabulary, or an argument
      is out of its range.
  """
  if not 1 <= order <= MAX_ORDER:
    raise ValueError(f"order={order!r} is not from 1 to {MAX_ORDER}")
  if discount is not None and not 0 < discount <= 1:
    raise ValueError(f"discount={discount!r} is not in (0, 1]")
  ids, depth = _padded(documents, order, vocab_size)
  node = np.zeros(len(ids), np.int64)  # of the n-gram that ends there
  keys: list[np.ndarray] = []
  counts: list[np.ndarray] = []
  for n in range(1, order + 1):
    ends = np.flatnonzero(depth >= n)
    key = node[ends - 1] if n > 1 else np.zeros(len(ends), np.int64)
    key = key * (vocab_size + 1) + ids[ends]
    found, first, number, times = np.unique(
      key, return_index=True, return_inverse=True, return_counts=True
    )
    if len(found) > 2**62 // (vocab_size + 1):
      raise ValueError(f"too many n-grams of order {n} for keys of 64 bits")
    real = found % (vocab_size + 1) != vocab_size
    if n > 1:  # those of one less are now known with what precedes them
      shorter = node[ends[first[real]]]
      counts.append(np.bincount(shorter, minlength=len(keys[-1])))
    keys.append(found)
    node = np.full(len(ids), -1, np.int64)
    node[ends] = number
  counts.append(np.where(real, times, 0))
  discounts = [discount or _estimate(each) for each in counts]
  return assemble(vocab_size, keys, counts, discounts)


def _padded(
  documents: Iterable[np.ndarray], order: int, vocab_size: int
) -> tuple[np.ndarray, np.ndarray]:
  """All ids after their marks, and how many ids of a document end at each."""
  marks = np.full(order - 1, vocab_size, np.int64)
  ids, depths = [], []
  for document in documents:
    document = np.asarray(document, np.int64)
    if not document.size:
      continue
    if document.min() < 0 or document.max() >= vocab_size:
      raise ValueError(f"an id is not within 0..{vocab_size - 1}")
    ids += [marks, document]
    rising = np.arange(1, len(document) + order)
    depths.append(np.minimum(rising, order).astype(np.int8))
  if not ids:
    raise ValueError("no ids to count")
  return np.concatenate(ids), np.concatenate(depths)


def _estimate(counts: np.ndarray) -> float:
  once, twice = (int((counts == n).sum()) for n in (1, 2))
  return once / (once + 2 * twice) if once else _FALLBACK


def assemble(
  vocab_size: int,
  keys: Iterable[np.ndarray],
  counts: Iterable[np.ndarray],
  discounts: Iterable[float],
) -> NGram:
  """Returns the model of these counts, with the sums of each context."""
  keys, counts = tuple(keys), tuple(counts)
  totals, types, size = [], [], 1
  for key, count in zip(keys, counts, strict=True):
    context = key // (vocab_size + 1)
    # Sums of weights are floats, exact below 2**53.
    total = np.bincount(context, weights=count, minlength=size)
    totals.append(total.astype(np.int64))
    types.append(np.bincount(context[count > 0], minlength=size))
    size = len(key)
  return NGram(
    vocab_size, keys, counts, tuple(totals), tuple(types), tuple(discounts)
  )


def _numbers(model: NGram, n: int, contexts, ids) -> np.ndarray:
  """Returns the number of each n-gram; -1 if it or its context is unknown."""
  keys, back = model.keys[n - 1], None
  wanted = contexts * (model.vocab_size + 1) + ids
  if len(keys) > _OUTSIDE_THE_CACHE and len(wanted) > 1:
    wanted, back = np.unique(wanted, return_inverse=True)
  at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
  found = np.where(keys[at] == wanted, at, -1)
  return np.where(contexts >= 0, found if back is None else found[back], -1)


def log_prob(model: NGram, ids: np.ndarray) -> np.ndarray:
  """Returns ln p of each id of a document, float64 [len(ids)].

  Raises:
    ValueError: an id is not of the vocabulary.
  """
  ids = np.asarray(ids, np.int64)
  if ids.size and (ids.min() < 0 or ids.max() >= model.vocab_size):
    raise ValueError(f"an id is not within 0..{model.vocab_size - 1}")
  before = model.order - 1
  padded = np.concatenate([np.full(before, model.vocab_size, np.int64), ids])
  found = [
    _scores(model, padded[start : start + _CHUNK + before])
    for start in range(0, len(ids), _CHUNK)
  ]
  return np.concatenate([np.zeros(0), *found])


def _scores(model: NGram, ids: np.ndarray) -> np.ndarray:
  """Returns ln p of each id that follows order - 1 others."""
  before = model.order - 1
  p = np.full(len(ids) - before, 1 / model.vocab_size)
  node = np.zeros(len(ids), np.int64)
  for n in range(1, model.order + 1):
    context = node
    if n > 1:
      context = np.concatenate([[-1], node[:-1]])
    node = _numbers(model, n, context, ids)
    last, context = node[before:], context[before:]
    count = np.where(last >= 0, model.counts[n - 1][last], 0)
    total = np.where(context >= 0, model.totals[n - 1][context], 0)
    spread = model.discounts[n - 1] * model.types[n - 1][context]
    direct = np.maximum(count - model.discounts[n - 1], 0)
    p = np.where(total > 0, (direct + spread * p) / np.maximum(total, 1), p)
  return np.log(p)


def distribution(model: NGram, context: Iterable[int]) -> np.ndarray:
  """Returns p of each id after a context, float64 [vocab_size], with sum 1.

  Args:
    model: the model.
    context: the ids from the beginning of a document on, or the last order - 1
      of them.
  """
  before, base = model.order - 1, model.vocab_size + 1
  marks = itertools.repeat(model.vocab_size, before)
  context = [*marks, *(int(i) for i in context)]
  context = context[len(context) - before :]
  p = np.full(model.vocab_size, 1 / model.vocab_size)
  for n in range(1, model.order + 1):
    node = np.zeros(1, np.int64)
    for k, i in enumerate(context[before - n + 1 :], start=1):
      node = _numbers(model, k, node, i)
    total = model.totals[n - 1][node[0]] if node[0] >= 0 else 0
    if not total:
      break  # nor has any longer context been seen before an id
    keys, low = model.keys[n - 1], node[0] * base
    within = slice(*np.searchsorted(keys, [low, low + model.vocab_size]))
    discount = model.discounts[n - 1]
    p = discount * model.types[n - 1][node[0]] * p
    p[keys[within] - low] += np.maximum(
      model.counts[n - 1][within] - discount, 0
    )
    p /= total
  return p


def perplexity(model: NGram, tokenizer: Tokenizer, text: str) -> float | None:
  """Returns exp(-ln p / UTF-8 bytes) of a text; None if it is empty.

  A byte is the same for all tokenizers, and for all languages about as much
  text, where a token or a character is not.

  Raises:
    ValueError: the tokenizer cannot spell the text.
  """
  size = len(text.encode())
  if not size:
    return None
  return math.exp(-float(log_prob(model, tokenizer.encode(text)).sum()) / size)
