"""N-gram counts and their Kneser-Ney probabilities, as a counting model.

The estimate equals that of input_pipeline/cleaning/parts/ngram.py up to
rounding: interpolated Kneser-Ney (Chen and Goodman, 1999, section 3), whose
lower orders count the distinct preceding tokens, down to 1 / V. With h the n -
1 tokens before w, and h' those without the first of them,

  p(w | h) = max(c(hw) - D, 0) / c(h.) + D N(h.) / c(h.) p(w | h')

The n-gram that ends at a token is one number, whose digits are its tokens in
base V + 1 (V marks positions before a beginning), stored in as many 32-bit
words as it needs. Each order's table holds its n-grams in ascending order: an
n-gram is found by bisection, and all n-grams that share a context are adjacent.
"""

import functools
import sys
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from models import Model
from models.layers import ngram_tables as tables

# Larger than any n-gram's first word, so that empty entries sort last.
_EMPTY = np.uint32(2**32 - 1)
# Far above any useful order.
MAX_ORDER = 32


def ngram(
  *,
  vocab_size: int,
  order: int = 5,
  capacity: int | None = 2**19,
  corpus_tokens: int | None = None,
  most_bytes: int = 2**33,
  discount: float | Sequence[float] | None = None,
) -> Model:
  """An n-gram model, tokens_BT -> log probabilities_BTV in float32.

  It has no parameters. In training `apply` returns the log probabilities before
  these tokens are counted, and adds their n-grams to model_state. With
  targets_BT each row, or each segment of it, is a document: its first input and
  then its targets where mask_BT is 1. Without targets_BT, the document is the
  inputs alone. Contexts do not cross rows or segments, and a document is
  preceded by marks of a beginning, so each n-gram within it is counted exactly
  once, in any order of documents. For each order model_state has "keys" uint32
  [words, capacity], "counts" int32 [capacity], and "lost" int32, the number of
  n-grams that did not fit; a line is printed when it first exceeds 0.

  The method "nats" returns -ln p of targets_BT, float32 [B, T], in memory that
  does not grow with V. The cache is "context", int32 [n - 1, B], the last
  tokens.

  Args:
    vocab_size: V.
    order: n, from 1 to MAX_ORDER.
    capacity: the number of distinct n-grams that each order can hold; None for
      as many as the training data can have.
    corpus_tokens: the number of tokens in the training data.
    most_bytes: the largest size of the tables.
    discount: D of every order, or one for each, unigrams' first, in 0 … 1; None
      estimates each by n1 / (n1 + 2 n2) (Ney et al., 1994).

  Raises:
    ValueError: an argument is out of range, or the tables are too large.
  """
  if capacity is None:
    capacity = corpus_tokens or 2**19
  if not 1 <= order <= MAX_ORDER:
    raise ValueError(f"order = {order!r} is not in 1 … {MAX_ORDER}")
  if capacity < 1:
    raise ValueError(f"capacity = {capacity!r} is not positive")
  discounts = _each_order(discount, order)
  base = vocab_size + 1
  digits = 1
  while base ** (digits + 1) < 2**32:
    digits += 1
  keys, before = tables.Keys(base, digits), order - 1
  words = [-(-n // digits) for n in range(1, order + 1)]
  places = [min(capacity, base**n) for n in range(1, order + 1)]
  # Each place has a count besides its key.
  size = 4 * sum(p * (w + 1) for p, w in zip(places, words, strict=True))
  if size > most_bytes:
    raise ValueError(
      f"the n-grams of order 1 to {order} of {capacity:,} tokens may need"
      f" {size / 1e9:.1f} GB, more than most_bytes={most_bytes:,}; set a lower"
      " order, or a capacity beyond which n-grams are not counted"
    )

  def init(rng):
    del rng
    return {}, {
      f"order_{n}": _empty(*sizes)
      for n, sizes in enumerate(zip(words, places, strict=True), start=1)
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
    del params, positions_BT, rng
    padded = None if cache is None else cache["context"].T
    context_IBT = contexts(tokens_BT, before, vocab_size, padded, segments_BT)
    if method == "nats":
      found = tables.nats(state, keys, context_IBT, targets_BT, discounts)
    else:
      found = tables.log_probs(
        state, keys, context_IBT, tokens_BT.shape, discounts
      )
    if train:
      events = targets_BT, mask_BT, segments_BT
      grams, real = _grams(order, vocab_size, tokens_BT, *events)
      state = _counted(state, keys, grams, real)
    if cache is None:
      return found, state
    padded = jnp.concatenate([padded, tokens_BT.astype(jnp.int32)], 1)
    context = padded[:, padded.shape[1] - before :].T
    return (found, {"context": context}), state

  def init_cache(batch_size, length, dtype=jnp.int32):
    del length, dtype
    return {"context": jnp.full((before, batch_size), vocab_size, jnp.int32)}

  return Model(init, apply, init_cache, counts=True)


def _each_order(discount, order: int) -> list[float | None]:
  """Returns D of each order, None if it is estimated."""
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
  """Returns the last `count` tokens at each position, including its own.

  Args:
    tokens_BT: integers.
    count: I.
    mark: the token before the beginning of a row or a segment.
    before_BI: the tokens before the row; marks if None.
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
  """Returns (the n-grams of a batch, n arrays [Q]; which are real, bool)."""
  if targets_BT is None:
    grams = contexts(tokens_BT, order, mark, segments_BT=segments_BT)
    real_BT = jnp.ones(tokens_BT.shape, bool)
    if segments_BT is not None:
      real_BT = segments_BT > 0
    return [x.reshape(-1) for x in grams], real_BT.reshape(-1)
  follow = contexts(tokens_BT, order - 1, mark, segments_BT=segments_BT)
  real_BT = jnp.ones(tokens_BT.shape, bool) if mask_BT is None else mask_BT > 0
  # The first token of a document is not a target.
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


def _counted(state, keys: tables.Keys, grams, real):
  """Returns the tables with a batch's n-grams added, highest order first.

  A new n-gram is a new preceding token of the n-gram without its first token,
  and so counts once for it.
  """
  new = {}
  words = [jnp.where(real, word, _EMPTY) for word in keys.of(grams)]
  for n in range(len(grams), 0, -1):
    table, words = _inserted(state[f"order_{n}"], words)
    first = (state[f"order_{n}"]["lost"] == 0) & (table["lost"] > 0)
    warn = functools.partial(_warn_of_lost, n, table["counts"].size)
    jax.lax.cond(
      first,
      lambda lost, warn=warn: jax.debug.callback(warn, lost),
      lambda lost: None,
      table["lost"],
    )
    new[f"order_{n}"] = table
    if n > 1:
      shorter = keys.of(keys.tokens(words, n)[1:])
      words = [jnp.where(words[0] < _EMPTY, w, _EMPTY) for w in shorter]
  return new


def _warn_of_lost(n: int, capacity: int, lost) -> None:
  print(
    f"ngram: {int(lost)} n-grams of order {n} did not fit and are not"
    f" counted: capacity = {capacity} is too small",
    file=sys.stderr,
  )


def _inserted(table, words):
  """Returns (the table with each n-gram counted once more, the new n-grams).

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
  # Among equal n-grams that of the table comes first.
  *merged, origin, counts = jax.lax.sort(
    (*merged, origin, counts), num_keys=len(merged) + 1
  )
  changes = [w != jnp.roll(w, 1) for w in merged]
  first = functools.reduce(jnp.logical_or, changes).at[0].set(True)
  number = jnp.cumsum(first) - 1
  real = merged[0] < _EMPTY
  kept = first & real

  def packed(mask, place, length):
    """Returns the masked n-grams at their places; _EMPTY elsewhere."""
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
  """Returns a table without n-grams."""
  return {
    "keys": jnp.full((words, capacity), _EMPTY, jnp.uint32),
    "counts": jnp.zeros((capacity,), jnp.int32),
    "lost": jnp.zeros((), jnp.int32),
  }


# The tables are sorted over all n-grams, so every device has a full copy.
SHARDING = [(r".*", P())]
