"""The compiled programs with which a model continues a batch of texts.

Shapes: B rows, P tokens of prompts, C tokens of a chunk, V vocabulary, W the
window of a text longer than max_len. B, P and the length of a cache are rounded
up, so that few programs are compiled.

Of every prompt all but its last token are fed first. A cache that grows with
the text takes them in one pass: what it holds of a shorter row's padding lies
beyond that row's length, where nothing looks before it is overwritten. Any
other cache (a recurrent state) takes them token by token, and a row that has
had all of its own is held as it is.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from train.generation import sampling

_LEAST_ROOM = 64
# Prompts are fed so many tokens at a time: attention's scores are T by S.
_SLAB = 256


class How(NamedTuple):
  """How each row draws, [B]; None where no row asks for it.

  seed: uint32; a draw's key is folded from it and the place of the token in
    the text.
  temperature: None where every row takes its best token.
  top_k, top_p, min_p: see decode.filter_logits.
  penalty: see decode.penalize.
  """

  seed: Any
  temperature: Any = None
  top_k: Any = None
  top_p: Any = None
  min_p: Any = None
  penalty: Any = None


class Rows(NamedTuple):
  """What the writing of a batch carries from token to token.

  cache: of what has been fed: all but the last token of each text.
  token_B: the last of each text.
  place_B: where in the text it stands.
  left_B: how many tokens may yet be drawn; 0 where the text has ended.
  seen_BV: bool, the tokens of the text; None where nothing is penalized.
  """

  cache: Any
  token_B: jax.Array
  place_B: jax.Array
  left_B: jax.Array
  seen_BV: jax.Array | None


class Programs(NamedTuple):
  """What continues texts.

  room: (tokens) -> the length of a cache for so many, or None where it does
    not depend on them, or where there is none for so many.
  begin: (variables, fed, room) -> a cache that has been fed each row's ids;
    with room None where there is none for so many: the window.
  grow: (cache, rows, room) -> the cache, with room for more.
  advance: (variables, Rows, How) -> (Rows, tokens_CB, count_B): draws up to C
    tokens a row, of which the first `count` are of the text, up to its end.
  feeds: (tokens that a row may yet draw) -> how many `advance` may feed it.
  """

  room: Callable[[int], int | None]
  begin: Callable[..., Any]
  grow: Callable[..., Any]
  advance: Callable[..., tuple[Rows, jax.Array, jax.Array]]
  feeds: Callable[[int], int]


def rounded(count: int, least: int = 1) -> int:
  """The next power of two, and no less than `least`."""
  return max(least, 1 << max(count - 1, 0).bit_length())


def draw(
  logits_BV: jax.Array, how: How, place_B: jax.Array, seen_BV=None
) -> jax.Array:
  """The token after the one at each row's place, int32 [B]."""
  if how.penalty is not None:
    logits_BV = sampling.penalize(logits_BV, seen_BV, how.penalty)
  if how.temperature is None:
    return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
  keys_B = keys(how, place_B)
  return sampling.sample_logits(logits_BV, keys_B, *_filters(how))


def distribution(logits_BV: jax.Array, how: How, seen_BV=None) -> jax.Array:
  """The probabilities [B, V] with which `draw` draws."""
  if how.penalty is not None:
    logits_BV = sampling.penalize(logits_BV, seen_BV, how.penalty)
  if how.temperature is None:
    how = how._replace(temperature=0.0)
  return sampling.distribution(logits_BV, *_filters(how))


def keys(how: How, place_B: jax.Array) -> jax.Array:
  """The key [B] of what each row draws after the token at its place."""

  def key(seed, place):
    return jax.random.fold_in(jax.random.key(seed), place)

  return jax.vmap(key)(how.seed, place_B)


def _filters(how: How):
  return how.temperature, how.top_k, how.top_p, how.min_p


def programs(model, eos: int | None, chunk: int) -> Programs:
  """The Programs of a model with an init_cache.

  Args:
    model: models.Model.
    eos: the id that ends a text, or None.
    chunk: C.
  """
  grows = grows_with_text(model)
  most = model.max_len if grows else None

  def apply(variables, tokens_BT, cache):
    return model.apply(
      variables.params, variables.model_state, tokens_BT, cache=cache
    )[0]

  def step(variables, cache, token_B):
    logits_B1V, cache = apply(variables, token_B[:, None], cache)
    return logits_B1V[:, -1], cache

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
  feed_each = jax.jit(_feed_each(step))

  def begin(variables, fed, room):
    if not grows:
      cache = _of_rows(model.init_cache(len(fed), 1), len(fed))
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
    name: jax.jit(_advance(function, eos, chunk), donate_argnums=1)
    for name, function in (("step", step), ("window", window))
  }

  def either(variables, rows, how):
    windowed = grows and not isinstance(rows.cache, dict)
    return advance["window" if windowed else "step"](variables, rows, how)

  return Programs(room, begin, grow, either, lambda left: min(left, chunk))


def _advance(step, eos: int | None, chunk: int):
  """Draws up to `chunk` tokens a row, until no row goes on."""

  def advance(variables, rows, how):
    def going(carry):
      count, rows, _ = carry
      return (count < chunk) & jnp.any(rows.left_B > 0)

    def body(carry):
      count, rows, tokens_CB = carry
      logits_BV, cache = step(variables, rows.cache, rows.token_B)
      alive_B = rows.left_B > 0
      drawn_B = draw(logits_BV, how, rows.place_B, rows.seen_BV)
      token_B = jnp.where(alive_B, drawn_B, rows.token_B)
      left_B = jnp.maximum(rows.left_B - 1, 0)
      if eos is not None:
        left_B = jnp.where(token_B == eos, 0, left_B)
      seen_BV = rows.seen_BV
      if seen_BV is not None:
        seen_BV = seen_BV.at[jnp.arange(len(token_B)), token_B].set(True)
      if has_length(cache):  # one that has ended stays within its cache
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


def _feed_each(step):
  """Feeds each row its own number of tokens, one at a time."""

  def feed(variables, cache, tokens_BP, length_B):
    def body(cache, inputs):
      place, token_B = inputs
      fed = step(variables, cache, token_B)[1]
      mine_B = place < length_B

      def held(new, old):
        if new.ndim == 0:
          return new  # it belongs to all rows
        axis = min(new.ndim - 1, 1)
        shape = [-1 if i == axis else 1 for i in range(new.ndim)]
        return jnp.where(mine_B.reshape(shape), new, old)

      return jax.tree.map(held, fed, cache), None

    places_P = jnp.arange(tokens_BP.shape[1])
    return jax.lax.scan(body, cache, (places_P, tokens_BP.T))[0]

  return feed


def grows_with_text(model) -> bool:
  """Whether the model's cache keeps every token in a place of its own."""
  if not has_length(jax.eval_shape(lambda: model.init_cache(1, 1))):
    return False

  def shapes(length):
    cache = jax.eval_shape(lambda: model.init_cache(1, length))
    return [leaf.shape for leaf in jax.tree.leaves(cache)]

  return shapes(1) != shapes(2)


def has_length(cache) -> bool:
  """Whether the cache is a dict that counts what has been fed."""
  return isinstance(cache, dict) and "length" in cache


def _of_rows(cache, B: int):
  """The cache with a length for every row, where it has one."""
  if not has_length(cache):
    return cache
  return cache | {"length": jnp.zeros((B,), jnp.int32)}


def _laid_into(empty, old):
  """What is in a cache, at the beginning of a longer one's."""
  if empty.ndim != old.ndim or empty.shape == old.shape:
    return old
  return jax.lax.dynamic_update_slice(empty, old, (0,) * old.ndim)


def _padded(ids: Sequence[Sequence[int]], length: int) -> np.ndarray:
  """int32 [B, length]: the ids, then zeros."""
  tokens_BP = np.zeros((len(ids), length), np.int32)
  for row, each in enumerate(ids):
    tokens_BP[row, : len(each)] = each
  return tokens_BP


def _lengths(ids: Sequence[Sequence[int]]) -> np.ndarray:
  return np.array([len(each) for each in ids], np.int32)
