"""N-gram counts and their Kneser-Ney probabilities, as a model that counts.

The estimate is that of input_pipeline/cleaning/parts/ngram.py, to rounding:
interpolated, of Chen and Goodman (1999, section 3), below the highest order by
how many different tokens precede, down to 1 / V. With h the n - 1 tokens before
w, h' those without the first of them,

  p(w | h) = max(c(hw) - D, 0) / c(h.) + D N(h.) / c(h.) p(w | h')

A token's n-gram is one number, whose digits are its tokens in base V + 1 (V
marks what stands before a beginning), in as many words of 32 bits as it needs.
Each order's table holds its n-grams in ascending order: an n-gram is found by
bisection, and all that follow a context stand side by side.
"""

import functools
import sys
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from models import Model

# What no n-gram's first word is; so that it stands last.
_EMPTY = np.uint32(2**32 - 1)
# Where no n-gram of an order was seen once, the estimate of D is 0, and what
# was not seen would be impossible.
_FALLBACK = 0.5
# Far beyond what is of use.
MAX_ORDER = 32


class _Keys(NamedTuple):
  """How n-grams become words: base V + 1, so many digits a word."""

  base: int
  digits: int

  def of(self, tokens: Sequence[jax.Array]) -> list[jax.Array]:
    """The words of n-grams, given by their tokens, int32 of one shape."""
    words = []
    for start in range(0, len(tokens), self.digits):
      word = jnp.zeros(tokens[0].shape, jnp.uint32)
      for token in tokens[start : start + self.digits]:
        word = word * jnp.uint32(self.base) + token.astype(jnp.uint32)
      words.append(word)
    return words

  def tokens(self, words: Sequence[jax.Array], n: int) -> list[jax.Array]:
    """The n tokens that `of` made the words of."""
    found = []
    for i, word in enumerate(words):
      count, digits = min(self.digits, n - i * self.digits), []
      for _ in range(count):
        digits.append((word % self.base).astype(jnp.int32))
        word = word // self.base
      found += reversed(digits)
    return found


def ngram(
  *,
  vocab_size: int,
  order: int = 5,
  capacity: int = 2**19,
  discount: float | Sequence[float] | None = None,
) -> Model:
  """A model that counts, tokens_BT -> log probabilities_BTV in float32.

  It has no parameters. In training `apply` gives what was known before these
  tokens, and adds their n-grams to model_state: with targets_BT each row, or
  each segment of it, is a document, its first input and then its targets,
  where mask_BT is 1; without, the inputs alone. Contexts do not cross rows or
  segments: a document begins after marks of a beginning, so each n-gram within
  it is counted exactly once, in any order of documents. model_state has for
  each order "keys" uint32 [words, capacity], "counts" int32 [capacity], and
  "lost" int32, how many n-grams found no place, of which a line tells when it
  is first above 0.

  The cache is "context", int32 [n - 1, B], the last tokens.

  Args:
    vocab_size: V.
    order: n, from 1 to MAX_ORDER.
    capacity: different n-grams that each order has place for.
    discount: D of every order, or one for each, unigrams' first, in 0 … 1;
      None estimates each by n1 / (n1 + 2 n2) (Ney et al., 1994).

  Raises:
    ValueError: an argument out of its range.
  """
  if not 1 <= order <= MAX_ORDER:
    raise ValueError(f"order = {order!r} is not in 1 … {MAX_ORDER}")
  if capacity < 1:
    raise ValueError(f"capacity = {capacity!r} is not positive")
  discounts = _each_order(discount, order)
  base = vocab_size + 1
  digits = 1
  while base ** (digits + 1) < 2**32:
    digits += 1
  keys, before = _Keys(base, digits), order - 1

  def init(rng):
    del rng
    return {}, {
      f"order_{n}": _empty(-(-n // digits), min(capacity, base**n))
      for n in range(1, order + 1)
    }

  def apply(
    params,
    state,
    tokens_BT,
    *,
    cache=None,
    targets_BT=None,
    mask_BT=None,
    segments_BT=None,
    positions_BT=None,
    rng=None,
    train=False,
    method=None,
  ):
    del params, positions_BT, rng, method
    padded = None if cache is None else cache["context"].T
    context_IBT = contexts(tokens_BT, before, vocab_size, padded, segments_BT)
    logits_BTV = _log_probs(
      state, keys, context_IBT, tokens_BT.shape, discounts
    )
    if train:
      events = targets_BT, mask_BT, segments_BT
      grams, real = _grams(order, vocab_size, tokens_BT, *events)
      state = _counted(state, keys, grams, real)
    if cache is None:
      return logits_BTV, state
    padded = jnp.concatenate([padded, tokens_BT.astype(jnp.int32)], 1)
    context = padded[:, padded.shape[1] - before :].T
    return (logits_BTV, {"context": context}), state

  def init_cache(batch_size, length, dtype=jnp.int32):
    del length, dtype
    return {"context": jnp.full((before, batch_size), vocab_size, jnp.int32)}

  return Model(init, apply, init_cache, counts=True)


def _each_order(discount, order: int) -> list[float | None]:
  """D of each order, None where it is estimated."""
  if discount is None:
    return [None] * order
  each = [discount] * order if isinstance(discount, int | float) else discount
  if len(each) != order or not all(0 <= d <= 1 for d in each):
    raise ValueError(
      f"discount = {discount!r} is not one number in 0 … 1, nor {order} of them"
    )
  return list(each)


def contexts(
  tokens_BT: jax.Array,
  count: int,
  mark: int,
  before_BI: jax.Array | None = None,
  segments_BT: jax.Array | None = None,
) -> list[jax.Array]:
  """The last `count` tokens at each position, its own the last of them.

  Args:
    tokens_BT: integers.
    count: I.
    mark: what stands before a row, or a segment, begins.
    before_BI: what came before the row; marks if None.
    segments_BT: of packed rows.

  Returns:
    I arrays int32 [B, T], the oldest tokens first.
  """
  B, T = tokens_BT.shape
  if before_BI is None:
    before_BI = jnp.full((B, count), mark, jnp.int32)
  padded = jnp.concatenate([before_BI, tokens_BT.astype(jnp.int32)], axis=1)
  found = [padded[:, i : i + T] for i in range(1, count + 1)]
  if segments_BT is None:
    return found
  held = jnp.pad(segments_BT, ((0, 0), (count, 0)), constant_values=-1)
  return [
    jnp.where(held[:, i : i + T] == segments_BT, tokens, mark)
    for i, tokens in enumerate(found, start=1)
  ]


# --- counting ------------------------------------------------------------


def _grams(order, mark, tokens_BT, targets_BT, mask_BT, segments_BT):
  """(the n-grams of a batch by token, n arrays [Q]; which are real, bool)."""
  if targets_BT is None:
    grams = contexts(tokens_BT, order, mark, segments_BT=segments_BT)
    real_BT = jnp.ones(tokens_BT.shape, bool)
    if segments_BT is not None:
      real_BT = segments_BT > 0
    return [x.reshape(-1) for x in grams], real_BT.reshape(-1)
  follow = contexts(tokens_BT, order - 1, mark, segments_BT=segments_BT)
  real_BT = jnp.ones(tokens_BT.shape, bool) if mask_BT is None else mask_BT > 0
  # The first token of a document is no target.
  first_BT, begins_BT = tokens_BT[:, :1], real_BT[:, :1]
  if segments_BT is not None:
    new_BT = segments_BT != jnp.pad(segments_BT, ((0, 0), (1, 0)))[:, :-1]
    first_BT, begins_BT = tokens_BT, real_BT & new_BT
  marks = jnp.full(first_BT.shape, mark, jnp.int32)
  grams = [
    jnp.concatenate([x.reshape(-1), first.reshape(-1).astype(jnp.int32)])
    for x, first in zip(
      [*follow, targets_BT.astype(jnp.int32)],
      [*[marks] * (order - 1), first_BT],
      strict=True,
    )
  ]
  return grams, jnp.concatenate([real_BT.reshape(-1), begins_BT.reshape(-1)])


def _counted(state, keys: _Keys, grams, real):
  """The tables with a batch's n-grams, from the highest order down.

  An n-gram that is new is what a token more precedes: it counts once for the
  n-gram without its first token.
  """
  new = {}
  words = [jnp.where(real, word, _EMPTY) for word in keys.of(grams)]
  for n in range(len(grams), 0, -1):
    table, words = _inserted(state[f"order_{n}"], words)
    first = (state[f"order_{n}"]["lost"] == 0) & (table["lost"] > 0)
    tell = functools.partial(_tell, n, table["counts"].size)
    jax.lax.cond(
      first,
      lambda lost, tell=tell: jax.debug.callback(tell, lost),
      lambda lost: None,
      table["lost"],
    )
    new[f"order_{n}"] = table
    if n > 1:
      shorter = keys.of(keys.tokens(words, n)[1:])
      words = [jnp.where(words[0] < _EMPTY, w, _EMPTY) for w in shorter]
  return new


def _tell(n: int, capacity: int, lost) -> None:
  print(
    f"ngram: {int(lost)} n-grams of order {n} found no place and are not"
    f" counted: capacity = {capacity} is too small",
    file=sys.stderr,
  )


def _inserted(table, words):
  """(the table in which each n-gram counts once more, the n-grams new to it).

  Args:
    table: of one order.
    words: uint32 [Q] each, _EMPTY where there is none.
  """
  capacity, size = table["counts"].size, words[0].size
  added = (words[0] < _EMPTY).astype(jnp.int32)
  merged = [
    jnp.concatenate([old, new])
    for old, new in zip(table["keys"], words, strict=True)
  ]
  origin = jnp.concatenate([jnp.zeros(capacity, bool), jnp.ones(size, bool)])
  counts = jnp.concatenate([table["counts"], added])
  # Of equal n-grams that of the table comes first.
  *merged, origin, counts = jax.lax.sort(
    (*merged, origin, counts), num_keys=len(merged) + 1
  )
  changes = [w != jnp.roll(w, 1) for w in merged]
  first = functools.reduce(jnp.logical_or, changes).at[0].set(True)
  number = jnp.cumsum(first) - 1
  real = merged[0] < _EMPTY
  kept = first & real

  def packed(mask, place, length):
    """The n-grams of a mask, at their places; _EMPTY elsewhere."""
    place = jnp.where(mask, place, length)
    empty = jnp.full((length,), _EMPTY, jnp.uint32)
    return [empty.at[place].set(w, mode="drop") for w in merged]

  lost = jnp.maximum(jnp.sum(kept) - capacity, 0).astype(jnp.int32)
  totals = jnp.zeros((capacity,), jnp.int32)
  totals = totals.at[number].add(jnp.where(real, counts, 0), mode="drop")
  fresh = kept & origin
  return {
    "keys": jnp.stack(packed(kept, number, capacity)),
    "counts": totals,
    "lost": table["lost"] + lost,
  }, packed(fresh, jnp.cumsum(fresh) - 1, size)


def _empty(words: int, capacity: int) -> dict[str, jax.Array]:
  """A table without n-grams."""
  return {
    "keys": jnp.full((words, capacity), _EMPTY, jnp.uint32),
    "counts": jnp.zeros((capacity,), jnp.int32),
    "lost": jnp.zeros((), jnp.int32),
  }


# --- probabilities -------------------------------------------------------


def _log_probs(state, keys: _Keys, context_IBT, shape, discounts):
  """ln p of each token after the contexts, float32 [*shape, V]."""
  vocab_size = keys.base - 1
  context_IQ = [x.reshape(-1) for x in context_IBT]
  zero_Q = jnp.zeros((shape[0] * shape[1],), jnp.int32)
  p_QV = jnp.full((zero_Q.size, vocab_size), 1 / vocab_size, jnp.float32)
  for n, discount in enumerate(discounts, start=1):
    table = state[f"order_{n}"]
    if discount is None:
      discount = _estimate(table["counts"])
    low = keys.of([*context_IQ[len(context_IQ) - n + 1 :], zero_Q])
    token_QV, count_QV = _followers(table, low, vocab_size)
    seen_QV = count_QV > 0
    total_Q1 = jnp.sum(count_QV, 1, keepdims=True).astype(jnp.float32)
    spread_Q1 = discount * jnp.sum(seen_QV, 1, keepdims=True)
    direct_QV = jnp.where(seen_QV, jnp.maximum(count_QV - discount, 0), 0)
    whole_QV = (
      (spread_Q1 * p_QV)
      .at[jnp.arange(zero_Q.size)[:, None], token_QV]
      .add(direct_QV, mode="drop")
    )
    mixed_QV = whole_QV / jnp.maximum(total_Q1, 1)
    p_QV = jnp.where(total_Q1 > 0, mixed_QV, p_QV)
  return jnp.log(p_QV).reshape(*shape, vocab_size)


def _estimate(counts: jax.Array) -> jax.Array:
  once, twice = (jnp.sum(counts == n).astype(jnp.float32) for n in (1, 2))
  return jnp.where(once > 0, once / jnp.maximum(once + 2 * twice, 1), _FALLBACK)


def _followers(table, low, vocab_size: int):
  """(token_QV, count_QV) of what was seen after contexts, side by side.

  Args:
    table: of one order.
    low: the words of the contexts, each followed by token 0; uint32 [Q] each.
    vocab_size: V; also the token where nothing was seen, with the count 0.
  """
  keys, capacity = table["keys"], table["counts"].size
  at_Q = _bisected(keys, low)
  place_QV = at_Q[:, None] + jnp.arange(vocab_size)[None]
  seen_QV = place_QV < capacity
  place_QV = jnp.minimum(place_QV, capacity - 1)
  for word, first_Q in zip(keys[:-1], low[:-1], strict=True):
    seen_QV &= word[place_QV] == first_Q[:, None]
  # Below 0 wraps around, and is no token either.
  token_QV = keys[-1][place_QV] - low[-1][:, None]
  seen_QV &= token_QV < vocab_size
  count_QV = jnp.where(seen_QV, table["counts"][place_QV], 0)
  return jnp.where(seen_QV, token_QV, vocab_size).astype(jnp.int32), count_QV


def _bisected(keys, low) -> jax.Array:
  """The place of the first n-gram that is not below; int32 [Q]."""
  capacity = keys.shape[1]

  def halve(_, bounds):
    left, right = bounds
    middle = (left + right) // 2
    below = jnp.zeros(middle.shape, bool)
    for word, wanted in reversed(list(zip(keys, low, strict=True))):
      found = word[jnp.minimum(middle, capacity - 1)]
      below = (found < wanted) | ((found == wanted) & below)
    open_ = left < right
    return (
      jnp.where(open_ & below, middle + 1, left),
      jnp.where(open_ & ~below, middle, right),
    )

  zeros = jnp.zeros(low[0].shape, jnp.int32)
  bounds = zeros, jnp.full(low[0].shape, capacity, jnp.int32)
  return jax.lax.fori_loop(0, capacity.bit_length(), halve, bounds)[0]


# The tables are sorted over all n-grams: whole on every device.
SHARDING = [(r".*", P())]
