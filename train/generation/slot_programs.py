"""The compiled programs of a batch of slots; see slots.py.

Every program is compiled before the first text, for a few sizes, so that no
text waits for a compilation.

Shapes: N slots; B slots that one program continues, with S tokens of their
caches; C tokens per call; P tokens of a piece of a prompt; V vocabulary.
"""

import concurrent.futures
import functools
import itertools
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from train import types
from train.generation import decoding_programs, sampling, streaming
from train.generation.decoding_programs import How, Rows

# The tokens of a prompt that one program reads.
_PIECES = (32, 256)
# Programs exist for 1 slot and for powers of two from here on.
_LEAST_SLOTS = 8
# The shortest cache that a program attends to; the next is four times as long.
_LEAST_ROOM = 96


class State(NamedTuple):
  """The texts in all slots.

  rows: see Rows, with N rows.
  how: the options of each slot; no field is None.
  """

  rows: Rows
  how: How


class Drawn(NamedTuple):
  """The tokens of one call of `advance`, which may still be computed.

  tokens_CB: the tokens of each slot.
  count_B: how many of them belong to the slot's text.
  """

  tokens_CB: jax.Array
  count_B: jax.Array

  def lists(self) -> list[list[int]]:
    """Returns the tokens of each slot; waits until they are computed."""
    rows = np.asarray(self.tokens_CB).T.tolist()
    counts = np.asarray(self.count_B).tolist()
    return [row[:count] for row, count in zip(rows, counts, strict=True)]

  def ready(self) -> bool:
    """Returns whether they are computed."""
    return self.tokens_CB.is_ready()


class Programs(NamedTuple):
  """The compiled programs of a batch; several batches may share them.

  variables: those of the model.
  count: N.
  room: the maximum number of tokens of a text and its prompt.
  chunk: C.
  vocabulary: V.
  grows: whether the cache has a place for each token.
  pieces: the sizes P, ascending.
  slot_counts: the sizes B, ascending.
  rooms: the sizes S, ascending; the last is `room`.
  compiled: the programs by name, or by name and sizes.
  """

  variables: types.Variables
  count: int
  room: int
  chunk: int
  vocabulary: int
  grows: bool
  pieces: list[int]
  slot_counts: list[int]
  rooms: list[int]
  compiled: dict[Any, Any]


def programs(
  inference: streaming.Inference, count: int, room: int, chunk: int = 8
) -> Programs:
  """Compiles the programs of a batch.

  Args:
    inference: the model; see streaming.inference.
    count: N, the number of slots.
    room: the maximum number of tokens of a text and its prompt.
    chunk: C, the most tokens that a call generates for each text.
  """
  grows = decoding_programs.grows_with_text(inference.model)
  found = Programs(
    variables=inference.variables,
    count=count,
    room=room,
    chunk=chunk,
    vocabulary=inference.tokenizer.vocab_size,
    grows=grows,
    pieces=sorted({min(size, room) for size in _PIECES}),
    slot_counts=_slot_counts(count),
    rooms=_rooms(room) if grows else [room],
    compiled={},
  )
  return found._replace(compiled=_compiled(_functions(inference, found), found))


def cache_bytes(inference: streaming.Inference, count: int, room: int) -> int:
  """Returns the size of the cache of `count` slots, in bytes."""
  cache = jax.eval_shape(lambda: inference.model.init_cache(count, room))
  return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(cache))


def _slot_counts(count: int) -> list[int]:
  sizes, size = [1], _LEAST_SLOTS
  while size < count:
    sizes.append(size)
    size *= 2
  return sorted({*sizes, count})


def _rooms(room: int) -> list[int]:
  rooms, size = [], _LEAST_ROOM
  while 3 * size < 2 * room:  # a little longer one would save little time
    rooms.append(size)
    size *= 4
  return [*rooms, room]


class _Functions(NamedTuple):
  """The functions of the slots, to be compiled for their sizes.

  start: () -> (State of empty slots, an empty cache [1, room]).
  clear: (cache) -> the cache [1, room] without its text.
  read: (variables, cache, tokens_1P, first, length) -> cache.
  join: (State, the State of one text, slot) -> State.
  move: (State, source, target) -> State.
  resize: (State, S) -> the State with caches of S tokens.
  advance: (variables, State, occupied, most, B) -> (State, Drawn).
  """

  start: Callable
  clear: Callable
  read: Callable
  join: Callable
  move: Callable
  resize: Callable
  advance: Callable


def _functions(inference, programs: Programs) -> _Functions:
  """Returns the functions of a model."""
  model, _, tokenizer = inference
  count, room, grows = programs.count, programs.room, programs.grows
  axes = _axes(model)

  apply, step = decoding_programs.reading(model)

  def empty(rows):
    return decoding_programs.of_rows(model.init_cache(rows, room), rows)

  def start():
    zeros = jnp.zeros((count,), jnp.int32)
    seen_NV = jnp.zeros((count, tokenizer.vocab_size), bool)
    rows = Rows(empty(count), zeros, zeros, zeros, seen_NV)
    how = jax.tree.map(lambda x: jnp.full((count,), x), _neutral())
    return State(rows, how), empty(1)

  def clear(cache):
    # What lies beyond a cache's length is never read.
    if grows:
      return cache | {"length": jnp.zeros((1,), jnp.int32)}
    return empty(1)

  feed_each = decoding_programs.feeding_each(step)

  def read(variables, cache, tokens_1P, first, length):
    if not grows:
      return feed_each(variables, cache, tokens_1P, jnp.reshape(length, (1,)))
    cache = apply(variables, tokens_1P, cache | {"length": first})[1]
    return cache | {"length": jnp.reshape(first + length, (1,))}

  def put(state, text, slot):
    cache = jax.tree.map(
      lambda whole, one, axis: jax.lax.dynamic_update_slice_in_dim(
        whole, _fitted(one, whole, axis), slot, axis.rows
      ),
      state.rows.cache,
      text.rows.cache,
      axes,
    )
    others = jax.tree.map(
      lambda whole, one: whole.at[slot].set(one),
      state._replace(rows=state.rows._replace(cache=None)),
      text._replace(rows=text.rows._replace(cache=None)),
    )
    return others._replace(rows=others.rows._replace(cache=cache))

  def move(state, source, target):
    cache = jax.tree.map(
      lambda x, axis: jax.lax.dynamic_slice_in_dim(x, source, 1, axis.rows),
      state.rows.cache,
      axes,
    )
    others = jax.tree.map(
      lambda x: x[source], state._replace(rows=state.rows._replace(cache=None))
    )
    return put(
      state, others._replace(rows=others.rows._replace(cache=cache)), target
    )

  generate = decoding_programs.advancing(
    step, tuple(tokenizer.ends), programs.chunk, _draw
  )

  def resize(state, S):
    cache = jax.tree.map(
      lambda x, axis: _resized(x, axis, S), state.rows.cache, axes
    )
    return state._replace(rows=state.rows._replace(cache=cache))

  def advance(variables, state, occupied, most, B):
    def first(x, axis):
      return jax.lax.slice_in_dim(x, 0, B, axis=axis.rows)

    def back(whole, part):
      return jax.lax.dynamic_update_slice(whole, part, (0,) * whole.ndim)

    whole = state.rows
    rows = jax.tree.map(lambda x: x[:B], whole._replace(cache=None))._replace(
      cache=jax.tree.map(first, whole.cache, axes)
    )
    alive_B = (jnp.arange(B) < occupied) & (rows.left_B > 0)
    rows = rows._replace(left_B=jnp.where(alive_B, rows.left_B, 0))
    how = jax.tree.map(
      lambda x, neutral: jnp.where(alive_B, x[:B], neutral),
      state.how,
      _neutral(),
    )
    rows, tokens_CB, count_B = generate(variables, rows, how, most)
    return (
      state._replace(rows=jax.tree.map(back, whole, rows)),
      Drawn(tokens_CB, count_B),
    )

  return _Functions(start, clear, read, put, move, resize, advance)


def _compiled(functions: _Functions, programs: Programs) -> dict[Any, Any]:
  """Compiles all programs, several at a time; returns them by name and size."""
  variables = programs.variables
  where = replicated(variables)

  def shape(x):
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where)

  def lower(function, *args, donate=()):
    jitted = jax.jit(function, donate_argnums=donate, out_shardings=where)
    return jitted.lower(*args)

  state, cache = jax.tree.map(shape, jax.eval_shape(functions.start))
  integer = jax.ShapeDtypeStruct((), jnp.int32)
  one = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), state
  )
  one = one._replace(rows=one.rows._replace(cache=cache))
  lowered = {
    "start": lower(functions.start),
    "clear": lower(functions.clear, cache, donate=0),
  }
  for P in programs.pieces:
    tokens_1P = jax.ShapeDtypeStruct((1, P), jnp.int32)
    args = (variables, cache, tokens_1P, integer, integer)
    lowered["read", P] = lower(functions.read, *args, donate=1)
  states, rooms = {}, programs.rooms
  for S in rooms:
    resize = functools.partial(functions.resize, S=S)
    states[S] = jax.tree.map(shape, jax.eval_shape(resize, state))
    lowered["join", S] = lower(
      functions.join, states[S], one, integer, donate=0
    )
    lowered["move", S] = lower(
      functions.move, states[S], integer, integer, donate=0
    )
  for less, more in itertools.pairwise(rooms):
    for source, target in ((less, more), (more, less)):
      resize = functools.partial(functions.resize, S=target)
      lowered["resize", source, target] = lower(resize, states[source])
  for B, S in itertools.product(programs.slot_counts, rooms):
    advance = functools.partial(functions.advance, B=B)
    args = (variables, states[S], integer, integer)
    lowered["advance", B, S] = lower(advance, *args, donate=1)
  with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    compiled = pool.map(lambda program: program.compile(), lowered.values())
    return dict(zip(lowered, compiled, strict=True))


def replicated(variables) -> jax.sharding.Sharding:
  """Returns where the batch is kept: whole, on each device of the variables."""
  for leaf in jax.tree.leaves(variables):
    sharding = getattr(leaf, "sharding", None)
    if isinstance(sharding, jax.sharding.NamedSharding):
      return jax.sharding.NamedSharding(
        sharding.mesh, jax.sharding.PartitionSpec()
      )
  return jax.sharding.SingleDeviceSharding(jax.devices()[0])


class _Axes(NamedTuple):
  """The axes of a leaf of a cache that count rows and tokens."""

  rows: int
  room: int | None


def _axes(model):
  """Returns the _Axes of each leaf of the model's cache."""

  def shapes(rows, room):
    return jax.eval_shape(
      lambda: decoding_programs.of_rows(model.init_cache(rows, room), rows)
    )

  def differing(one, other):
    pairs = enumerate(zip(one.shape, other.shape, strict=True))
    return next((axis for axis, (a, b) in pairs if a != b), None)

  return jax.tree.map(
    lambda x, more_rows, more_room: _Axes(
      differing(x, more_rows), differing(x, more_room)
    ),
    shapes(1, 1),
    shapes(2, 1),
    shapes(1, 2),
  )


def _resized(x, axis: _Axes, S: int):
  """Returns a leaf of a cache with S tokens, zeros after those it had."""
  if axis.room is None:
    return x
  if (extra := S - x.shape[axis.room]) <= 0:
    return jax.lax.slice_in_dim(x, 0, S, axis=axis.room)
  return jnp.pad(x, [(0, extra * (i == axis.room)) for i in range(x.ndim)])


def _fitted(one, whole, axis: _Axes):
  """Returns a leaf of one text's cache with as many tokens as the whole."""
  return (
    one if axis.room is None else _resized(one, axis, whole.shape[axis.room])
  )


def _neutral() -> How:
  """Returns the options that select the most likely token, as scalars."""
  return How(
    seed=np.uint32(0),
    temperature=np.float32(0),
    top_k=np.int32(np.iinfo(np.int32).max),
    top_p=np.float32(1),
    min_p=np.float32(0),
    penalty=np.float32(1),
  )


def _draw(logits_BV, how: How, place_B, seen_BV) -> jax.Array:
  """decoding_programs.draw, which computes no more than the options need."""
  plain_B = (how.top_k >= logits_BV.shape[-1]) & (how.top_p >= 1)
  plain_B &= (how.min_p <= 0) & (how.penalty == 1)
  greedy_B = plain_B & (how.temperature == 0)

  def likeliest():
    return decoding_programs.draw(logits_BV, How(how.seed), place_B)

  def tempered():
    keys_B = decoding_programs.keys(how, place_B)
    return sampling.sample_logits(logits_BV, keys_B, how.temperature)

  def filtered():
    return decoding_programs.draw(logits_BV, how, place_B, seen_BV)

  kind = jnp.where(jnp.all(greedy_B), 0, jnp.where(jnp.all(plain_B), 1, 2))
  return jax.lax.switch(kind, [likeliest, tempered, filtered])
