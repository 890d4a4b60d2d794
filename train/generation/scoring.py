"""Log-probabilities that a trained model gives to texts.

All programs have one of a few fixed sizes, so they can be compiled beforehand.

Shapes: S tokens of a cache, P tokens of a pass, V vocabulary, K most likely
tokens.
"""

import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from train import trained
from train.generation import decoding_programs, slot_programs, streaming

# Tokens per pass; it bounds the memory of the logits.
_SLAB = 256
# The most likely tokens that every program returns; fewer may be asked for.
_TOP = 20


class Scores(NamedTuple):
  """The log-probabilities of one text, in nats, at temperature 1.

  own_T: float32, of each token given those before it; NaN for the first.
  ids_TK: int32, the most likely tokens at each position, most likely first.
  top_TK: float32, their log-probabilities. The first row of both is not valid.
  """

  own_T: np.ndarray
  ids_TK: np.ndarray
  top_TK: np.ndarray


class Scorer:
  """(texts, K) -> the Scores of each text; threads may share it.

  A call raises ValueError for a text that is empty or has more than `room`
  tokens, or a K above 20.

  Args:
    found: a run whose model generates text; UserError if it does not.
    room: the maximum number of tokens of a text; the model's max_len limits it
      as well.
  """

  def __init__(self, found: trained.Trained, room: int):
    model, self._variables, tokenizer = streaming.inference(
      found, unstack=False
    )
    self.room = min(room, model.max_len or room)
    self._grows = decoding_programs.grows_with_text(model)
    self._model, self._lock = model, threading.Lock()
    self._top = min(_TOP, tokenizer.vocab_size)
    self._compiled: dict[int, Any] = {}

  def compile(self) -> int:
    """Compiles all programs; returns how many there are."""
    with self._lock:
      for S in self._sizes():
        self._program(S)
    return len(self._compiled)

  def __call__(self, texts: Sequence[Sequence[int]], top: int) -> list[Scores]:
    """Returns the Scores of each text; see the class."""
    longest = max(map(len, texts), default=0)
    if not all(texts):
      raise ValueError("a text is empty")
    if longest > self.room:
      raise ValueError(
        f"a text has {longest} tokens, at most {self.room} can be scored"
      )
    if top > _TOP:
      raise ValueError(f"{top} tokens per position are more than {_TOP}")
    with self._lock:
      return [self._scores(ids, top) for ids in texts]

  def _sizes(self) -> list[int]:
    """Returns the sizes S, ascending; each is four times the one before."""
    sizes, size = [], _SLAB
    while size < self.room:
      sizes.append(size)
      size *= 4
    return [*sizes, self.room]

  def _program(self, S: int):
    """Returns (P, begin, program) for texts of at most S tokens.

    begin: () -> an empty cache; None if it has no place for each token.
    program: (variables, cache, tokens_1P, next_1P) -> (cache, (own_1P,
      top_1PK, ids_1PK)); without a cache, P is S.
    """
    if S in self._compiled:
      return self._compiled[S]
    where = slot_programs.replicated(self._variables)

    def empty():
      return self._model.init_cache(1, S) if self._grows else None

    cache = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where),
      jax.eval_shape(empty),
    )
    P = S if cache is None else min(_SLAB, S)
    tokens_1P = jax.ShapeDtypeStruct((1, P), jnp.int32)

    def scored(variables, cache, tokens_1P, next_1P):
      given = (variables.params, variables.model_state, tokens_1P)
      if cache is None:
        logits_1PV = self._model.apply(*given)[0]
      else:
        logits_1PV, cache = self._model.apply(*given, cache=cache)[0]
      logs_1PV = jax.nn.log_softmax(logits_1PV.astype(jnp.float32), axis=-1)
      own_1P1 = jnp.take_along_axis(logs_1PV, next_1P[..., None], axis=-1)
      return cache, (own_1P1[..., 0], *jax.lax.top_k(logs_1PV, self._top))

    begin = jax.jit(empty, out_shardings=where).lower()
    program = jax.jit(scored, donate_argnums=1, out_shardings=where).lower(
      self._variables, cache, tokens_1P, tokens_1P
    )
    self._compiled[S] = P, begin.compile(), program.compile()
    return self._compiled[S]

  def _scores(self, ids: Sequence[int], top: int) -> Scores:
    T = len(ids)
    S = min(S for S in self._sizes() if T <= S)
    P, begin, program = self._program(S)
    cache, parts = begin(), []
    ids_S = np.zeros((S + 1,), np.int32)
    ids_S[:T] = ids
    for first in range(0, T, P):
      # Near the end of the cache, tokens are read again at their own places.
      start = min(first, S - P)
      if start < first:
        cache = cache | {"length": np.int32(start)}
      tokens_1P = ids_S[None, start : start + P]
      next_1P = ids_S[None, start + 1 : start + P + 1]
      cache, scores = program(self._variables, cache, tokens_1P, next_1P)
      parts.append([np.asarray(x)[0, first - start :] for x in scores])
    own_T, top_TK, ids_TK = (
      np.concatenate(x)[:T] for x in zip(*parts, strict=True)
    )
    return Scores(
      np.concatenate([[np.float32(np.nan)], own_T[:-1]]),
      _late(ids_TK)[:, :top],
      _late(top_TK)[:, :top],
    )


def _late(rows_TK: np.ndarray) -> np.ndarray:
  """Moves the predictions of each position to the position that they are of."""
  return np.roll(rows_TK, 1, axis=0)
