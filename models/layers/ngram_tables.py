"""Kneser-Ney probabilities of sorted tables of n-grams.

A table holds the n-grams of one order in ascending order of their keys, "keys"
uint32 [words, capacity], and "counts" int32 [capacity]; see
models/language/ngram.py.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

# Where no n-gram of an order was seen once, the estimate of D is 0, and what
# was not seen would be impossible.
_FALLBACK = 0.5


class Keys(NamedTuple):
  """Encodes n-grams as words: base V + 1, a fixed number of digits per word."""

  base: int
  digits: int

  def of(self, tokens: Sequence[jax.Array]) -> list[jax.Array]:
    """Returns n-grams as words, given their tokens, int32 of one shape."""
    words = []
    for start in range(0, len(tokens), self.digits):
      word = jnp.zeros(tokens[0].shape, jnp.uint32)
      for token in tokens[start : start + self.digits]:
        word = word * jnp.uint32(self.base) + token.astype(jnp.uint32)
      words.append(word)
    return words

  def tokens(self, words: Sequence[jax.Array], n: int) -> list[jax.Array]:
    """Returns the n tokens from which `of` made the words."""
    found = []
    for i, word in enumerate(words):
      count, digits = min(self.digits, n - i * self.digits), []
      for _ in range(count):
        digits.append((word % self.base).astype(jnp.int32))
        word = word // self.base
      found += reversed(digits)
    return found


def log_probs(state, keys: Keys, context_IBT, shape, discounts):
  """Returns ln p of each token after the contexts, float32 [*shape, V]."""
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


def nats(state, keys: Keys, context_IBT, targets_BT, discounts):
  """Returns -ln p of the targets, float32 [B, T].

  It is what `log_probs` gives at the targets, without the other tokens: the
  memory does not depend on the size of the vocabulary.
  """
  mark = keys.base - 1
  context_IQ = [x.reshape(-1) for x in context_IBT]
  target_Q = targets_BT.reshape(-1).astype(jnp.int32)
  p_Q = jnp.full(target_Q.shape, 1 / mark, jnp.float32)
  for n, discount in enumerate(discounts, start=1):
    table = state[f"order_{n}"]
    counts = table["counts"]
    if discount is None:
      discount = _estimate(counts)
    of_context = context_IQ[len(context_IQ) - n + 1 :]
    # No n-gram ends in the mark, so the followers end before it.
    first_Q, end_Q = (
      _bisected(
        table["keys"], keys.of([*of_context, jnp.full_like(target_Q, w)])
      )
      for w in (0, mark)
    )
    words = keys.of([*of_context, target_Q])
    at_Q = jnp.minimum(_bisected(table["keys"], words), counts.size - 1)
    same_Q = functools.reduce(
      jnp.logical_and,
      [
        row[at_Q] == word
        for row, word in zip(table["keys"], words, strict=True)
      ],
    )
    count_Q = jnp.where(same_Q, counts[at_Q], 0)
    sums = jnp.pad(jnp.cumsum(counts), (1, 0))
    total_Q = (sums[end_Q] - sums[first_Q]).astype(jnp.float32)
    direct_Q = jnp.where(same_Q, jnp.maximum(count_Q - discount, 0), 0)
    mixed_Q = discount * (end_Q - first_Q) * p_Q + direct_Q
    p_Q = jnp.where(total_Q > 0, mixed_Q / jnp.maximum(total_Q, 1), p_Q)
  return -jnp.log(p_Q).reshape(targets_BT.shape)


def _estimate(counts: jax.Array) -> jax.Array:
  once, twice = (jnp.sum(counts == n).astype(jnp.float32) for n in (1, 2))
  return jnp.where(once > 0, once / jnp.maximum(once + 2 * twice, 1), _FALLBACK)


def _followers(table, low, vocab_size: int):
  """Returns (token_QV, count_QV) of the adjacent followers of contexts.

  Args:
    table: of one order.
    low: the words of the contexts, each followed by token 0; uint32 [Q] each.
    vocab_size: V; also the token of unused entries, whose count is 0.
  """
  keys, capacity = table["keys"], table["counts"].size
  at_Q = _bisected(keys, low)
  place_QV = at_Q[:, None] + jnp.arange(vocab_size)[None]
  seen_QV = place_QV < capacity
  place_QV = jnp.minimum(place_QV, capacity - 1)
  for word, first_Q in zip(keys[:-1], low[:-1], strict=True):
    seen_QV &= word[place_QV] == first_Q[:, None]
  # Values below 0 wrap around, and are not tokens either.
  token_QV = keys[-1][place_QV] - low[-1][:, None]
  seen_QV &= token_QV < vocab_size
  count_QV = jnp.where(seen_QV, table["counts"][place_QV], 0)
  return jnp.where(seen_QV, token_QV, vocab_size).astype(jnp.int32), count_QV


def _bisected(keys, low) -> jax.Array:
  """Returns the index of the first n-gram that is not below; int32 [Q]."""
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
