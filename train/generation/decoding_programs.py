"""The compiled programs with which a model continues a batch of texts.

Shapes: B rows, P prompt tokens, C tokens per chunk, V vocabulary, W the window
of a text longer than max_len. B, P and the length of a cache are rounded up, so
that few programs are compiled.

All tokens of a prompt except the last are fed first (prefill). A cache that
grows with the text takes them in one pass: the padding of a shorter row is
stored beyond that row's length, where it is never read before it is
overwritten. Any other cache (a recurrent state) takes them one token at a time,
and a row whose prompt is exhausted keeps its state.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from train.generation import sampling

_LEAST_ROOM = 64
# Tokens per prefill pass; it bounds the attention scores, which are T by S.
_SLAB = 256


class How(NamedTuple):
  """Sampling options per row, [B]; None if no row uses the option.

  seed: uint32; the key of each sample is folded from the seed and the position
    of the token in the text.
  temperature: None if every row selects its most likely token.
  top_k, top_p, min_p: see sampling.filter_logits.
  penalty: see sampling.penalize.
  """

  seed: Any
  temperature: Any = None
  top_k: Any = None
  top_p: Any = None
  min_p: Any = None
  penalty: Any = None


class Rows(NamedTuple):
  """The state of a batch of texts, carried from token to token.

  cache: the model's cache of every token except the last one of each text.
  token_B: the last token of each text.
  place_B: the position of that token in its text.
  left_B: how many more tokens may be generated; 0 if the text has ended.
  seen_BV: bool, the tokens that occur in the text; None without a penalty.
  """

  cache: Any
  token_B: jax.Array
  place_B: jax.Array
  left_B: jax.Array
  seen_BV: jax.Array | None


class Programs(NamedTuple):
  """The functions that continue a batch of texts.

  room: (tokens) -> the length of a cache that holds this many tokens. None if
    the cache does not depend on the length, or if the model's max_len is too
    short for this many tokens.
  begin: (variables, fed, room) -> a cache that has been fed each row's ids. If
    room is None because max_len is too short, the cache is the window of
    sampling.window_step.
  grow: (cache, rows, room) -> the cache, extended to length `room`.
  advance: (variables, Rows, How) -> (Rows, tokens_CB, count_B): generates up to
    C tokens per row; the first `count` of them belong to the text, including
    the token that ends it.
  feeds: (tokens that a row may still generate) -> the maximum number of tokens
    that one `advance` feeds to it.
  """

  room: Callable[[int], int | None]
  begin: Callable[..., Any]
  grow: Callable[..., Any]
  advance: Callable[..., tuple[Rows, jax.Array, jax.Array]]
  feeds: Callable[[int], int]


def seed_of(seed: int) -> np.uint32:
  """Returns How.seed for a seed of any size.

  Seeds of at most 32 bits are kept; the upper bits of larger ones, such as 64
  bits or a sum beyond them, are hashed into the lower 32.
  """
  upper, lower = divmod(seed, 2**32)
  if upper not in (0, -1):  # -1 is that of a small negative seed
    digest = hashlib.sha256(str(upper).encode()).digest()
    lower ^= int.from_bytes(digest[:4], "big")
  return np.uint32(lower)


def rounded(count: int, least: int = 1) -> int:
  """Returns count rounded up to a power of two, at least `least`."""
  return max(least, 1 << max(count - 1, 0).bit_length())


def draw(
  logits_BV: jax.Array, how: How, place_B: jax.Array, seen_BV=None
) -> jax.Array:
  """Samples the token that follows each row's position, int32 [B]."""
  if how.penalty is not None:
    logits_BV = sampling.penalize(logits_BV, seen_BV, how.penalty)
  if how.temperature is None:
    return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
  keys_B = keys(how, place_B)
  return sampling.sample_logits(logits_BV, keys_B, *_filters(how))


def distribution(logits_BV: jax.Array, how: How, seen_BV=None) -> jax.Array:
  """Returns the distribution [B, V] that `draw` samples from."""
  if how.penalty is not None:
    logits_BV = sampling.penalize(logits_BV, seen_BV, how.penalty)
  if how.temperature is None:
    how = how._replace(temperature=0.0)
  return sampling.distribution(logits_BV, *_filters(how))


def keys(how: How, place_B: jax.Array) -> jax.Array:
  """Returns the keys [B] for sampling the token after each position."""

  def key(seed, place):
    return jax.random.fold_in(jax.random.key(seed), place)

  return jax.vmap(key)(how.seed, place_B)


def _filters(how: How):
  return how.temperature, how.top_k, how.top_p, how.min_p


def reading(model) -> tuple[Callable, Callable]:
  """Returns the functions that read tokens into a model's cache.

  (variables, tokens_BT, cache) -> (logits_BTV, cache), and
  (variables, cache, token_B) -> (logits_BV, cache).
  """

  def apply(variables, tokens_BT, cache):
    return model.apply(
      variables.params, variables.model_state, tokens_BT, cache=cache
    )[0]

  def step(variables, cache, token_B):
    logits_B1V, cache = apply(variables, token_B[:, None], cache)
    return logits_B1V[:, -1], cache

  return apply, step


def programs(model, ends: Sequence[int], chunk: int) -> Programs:
  """Returns the Programs of a model that has an init_cache.

  Args:
    model: a models.Model.
    ends: the ids that end a text.
    chunk: C, the maximum number of tokens per call of `advance`.
  """
  grows = grows_with_text(model)
  most = model.max_len if grows else None

  apply, step = reading(model)

  def window(variables, cache, token_B):
    def at(tokens_BW, place_B):
      return sampling.logits_at(model, variables, tokens_BW, place_B)

    slide, _ = sampling.window_step(at, len(token_B), most)
    return slide(cache, token_B[:, None])

  def room(tokens):
    if not grows:
      return None
    if most is None:
      return rounded(tokens, _LEAST_ROOM)
    return min(rounded(tokens, _LEAST_ROOM), most) if tokens <= most else None

  feed = jax.jit(lambda *args: apply(*args)[1], donate_argnums=2)
  feed_each = jax.jit(feeding_each(step))

  def begin(variables, fed, room):
    if not grows:
      cache = of_rows(model.init_cache(len(fed), 1), len(fed))
      longest = max(map(len, fed))
      if not longest:
        return cache
      tokens_BP = _padded(fed, rounded(longest))
      return feed_each(variables, cache, tokens_BP, _lengths(fed))
    if room is None:
      last = [ids[-most:] for ids in fed]
      return jnp.asarray(_padded(last, most)), jnp.asarray(_lengths(last))
    cache = model.init_cache(len(fed), room)
    for first in range(0, max(map(len, fed)), _SLAB):
      slab = [ids[first : first + _SLAB] for ids in fed]
      size = min(rounded(max(map(len, slab))), room - first)
      cache = feed(variables, _padded(slab, size), cache)
    return cache | {"length": jnp.asarray(_lengths(fed))}

  def grow(cache, rows, room):
    return jax.tree.map(_laid_into, model.init_cache(rows, room), cache)

  advance = {
    name: jax.jit(advancing(function, tuple(ends), chunk), donate_argnums=1)
    for name, function in (("step", step), ("window", window))
  }

  def either(variables, rows, how):
    windowed = grows and not isinstance(rows.cache, dict)
    return advance["window" if windowed else "step"](variables, rows, how)

  return Programs(room, begin, grow, either, lambda left: min(left, chunk))


def advancing(step, ends: tuple[int, ...], chunk: int, draw=draw):
  """Returns the loop that generates up to `chunk` tokens per row.

  (variables, Rows, How, most) -> (Rows, tokens_CB, count_B); see Programs.
  `most`, if given, is a smaller number of tokens, which may be traced.
  """

  def advance(variables, rows, how, most=None):
    limit = chunk if most is None else jnp.minimum(most, chunk)

    def going(carry):
      count, rows, _ = carry
      return (count < limit) & jnp.any(rows.left_B > 0)

    def body(carry):
      count, rows, tokens_CB = carry
      logits_BV, cache = step(variables, rows.cache, rows.token_B)
      alive_B = rows.left_B > 0
      drawn_B = draw(logits_BV, how, rows.place_B, rows.seen_BV)
      token_B = jnp.where(alive_B, drawn_B, rows.token_B)
      left_B = jnp.maximum(rows.left_B - 1, 0)
      if ends:
        left_B = jnp.where(sampling.is_end(token_B, ends), 0, left_B)
      seen_BV = rows.seen_BV
      if seen_BV is not None:
        seen_BV = seen_BV.at[jnp.arange(len(token_B)), token_B].set(True)
      if has_length(cache):  # a row that has ended must not outgrow its cache
        length_B = jnp.where(alive_B, cache["length"], rows.cache["length"])
        cache = cache | {"length": length_B}
      place_B = rows.place_B + alive_B
      rows = Rows(cache, token_B, place_B, left_B, seen_BV)
      return count + 1, rows, tokens_CB.at[count].set(token_B)

    tokens_CB = jnp.zeros((chunk, len(rows.token_B)), jnp.int32)
    first_B = rows.place_B
    _, rows, tokens_CB = jax.lax.while_loop(
      going, body, (jnp.int32(0), rows, tokens_CB)
    )
    return rows, tokens_CB, rows.place_B - first_B

  return advance


def feeding_each(step):
  """Returns a function that feeds each row its tokens, one at a time."""

  def feed(variables, cache, tokens_BP, length_B):
    def body(cache, inputs):
      place, token_B = inputs
      fed = step(variables, cache, token_B)[1]
      mine_B = place < length_B

      def held(new, old):
        if new.ndim == 0:
          return new  # shared by all rows
        axis = min(new.ndim - 1, 1)
        shape = [-1 if i == axis else 1 for i in range(new.ndim)]
        return jnp.where(mine_B.reshape(shape), new, old)

      return jax.tree.map(held, fed, cache), None

    places_P = jnp.arange(tokens_BP.shape[1])
    return jax.lax.scan(body, cache, (places_P, tokens_BP.T))[0]

  return feed


def grows_with_text(model) -> bool:
  """Whether the model's cache has a separate slot for every token."""
  if not has_length(jax.eval_shape(lambda: model.init_cache(1, 1))):
    return False

  def shapes(length):
    cache = jax.eval_shape(lambda: model.init_cache(1, length))
    return [leaf.shape for leaf in jax.tree.leaves(cache)]

  return shapes(1) != shapes(2)


def has_length(cache) -> bool:
  """Whether the cache is a dict with the number of tokens fed so far."""
  return isinstance(cache, dict) and "length" in cache


def of_rows(cache, B: int):
  """Replaces the cache's length, if it has one, by one per row."""
  if not has_length(cache):
    return cache
  return cache | {"length": jnp.zeros((B,), jnp.int32)}


def _laid_into(empty, old):
  """Copies a leaf of a cache to the beginning of a longer one."""
  if empty.ndim != old.ndim or empty.shape == old.shape:
    return old
  return jax.lax.dynamic_update_slice(empty, old, (0,) * old.ndim)


def _padded(ids: Sequence[Sequence[int]], length: int) -> np.ndarray:
  """Returns the ids as int32 [B, length], padded with zeros."""
  tokens_BP = np.zeros((len(ids), length), np.int32)
  for row, each in enumerate(ids):
    tokens_BP[row, : len(each)] = each
  return tokens_BP


def _lengths(ids: Sequence[Sequence[int]]) -> np.ndarray:
  return np.array([len(each) for each in ids], np.int32)
