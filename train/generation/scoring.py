"""Log-probabilities that a trained model gives to texts.

Shapes: B texts, T tokens, P tokens of a pass, K most likely tokens.
"""

import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from train import trained
from train.generation import decoding_programs, streaming

# Tokens per pass; it bounds the memory of the logits.
_SLAB = 256
# The values of K for which a program is compiled.
_TOPS = (1, 5, 20)


class Scores(NamedTuple):
  """The log-probabilities of one text, in nats, at temperature 1.

  own_T: float32, of each token given those before it; NaN for the first.
  ids_TK: int32, the most likely tokens at each position, most likely first.
  top_TK: float32, their log-probabilities. The first row of both is not valid.
  """

  own_T: np.ndarray
  ids_TK: np.ndarray
  top_TK: np.ndarray


Score = Callable[[Sequence[Sequence[int]], int], list[Scores]]


def scorer(found: trained.Trained) -> Score:
  """Returns (texts, K) -> the Scores of each text; it may be used by threads.

  Args:
    found: a run whose model generates text.

  Raises:
    UserError: the model cannot generate text.
    ValueError: the returned function raises it for a text that is empty or
      exceeds the model's max_len, or a K above 20.
  """
  model, variables, _ = streaming.inference(found, unstack=False)
  grows, lock = decoding_programs.grows_with_text(model), threading.Lock()

  def of(logits_BPV, next_BP, most):
    logs_BPV = jax.nn.log_softmax(logits_BPV.astype(jnp.float32), axis=-1)
    own_BP1 = jnp.take_along_axis(logs_BPV, next_BP[..., None], axis=-1)
    return own_BP1[..., 0], *jax.lax.top_k(logs_BPV, most)

  def apply(variables, tokens_BP, **how):
    given = (variables.params, variables.model_state, tokens_BP)
    return model.apply(*given, **how)[0]

  def continued(variables, cache, tokens_BP, next_BP, most):
    logits_BPV, cache = apply(variables, tokens_BP, cache=cache)
    return cache, of(logits_BPV, next_BP, most)

  def at_once(variables, tokens_BP, next_BP, most):
    return of(apply(variables, tokens_BP), next_BP, most)

  slab = jax.jit(continued, static_argnames="most", donate_argnums=1)
  whole = jax.jit(at_once, static_argnames="most")

  def passes(tokens_BT, next_BT, most):
    B, T = tokens_BT.shape
    if not grows:
      yield whole(variables, tokens_BT, next_BT, most)
      return
    cache = model.init_cache(B, T)
    for first in range(0, T, _SLAB):
      piece = slice(first, first + _SLAB)
      cache, scores = slab(
        variables, cache, tokens_BT[:, piece], next_BT[:, piece], most
      )
      yield scores

  def score(texts, top):
    longest = max(map(len, texts), default=0)
    if not all(texts) or (model.max_len or longest) < longest:
      raise ValueError(
        f"a text has {longest} tokens, at most {model.max_len} can be scored"
        if all(texts)
        else "a text is empty"
      )
    most = min((k for k in _TOPS if k >= top), default=top)
    if most > _TOPS[-1]:
      raise ValueError(f"{top} tokens per position are more than {_TOPS[-1]}")
    most = min(most, found.parts.data.tokenizer.vocab_size)
    T = decoding_programs.rounded(longest, 16)
    T = T if model.max_len is None else min(T, model.max_len)
    B = decoding_programs.rounded(len(texts))
    tokens_BT = np.zeros((B, T), np.int32)
    for row, ids in enumerate(texts):
      tokens_BT[row, : len(ids)] = ids
    next_BT = np.pad(tokens_BT[:, 1:], ((0, 0), (0, 1)))
    with lock:
      parts = [
        [np.asarray(x) for x in scores]
        for scores in passes(tokens_BT, next_BT, most)
      ]
    own_BT, top_BTK, ids_BTK = (
      np.concatenate(x, 1) for x in zip(*parts, strict=True)
    )
    return [
      Scores(
        np.concatenate([[np.float32(np.nan)], own_BT[row, : len(ids) - 1]]),
        _late(ids_BTK[row, : len(ids)])[:, :top],
        _late(top_BTK[row, : len(ids)])[:, :top],
      )
      for row, ids in enumerate(texts)
    ]

  return score


def _late(rows_TK: np.ndarray) -> np.ndarray:
  """Moves the predictions of each position to the position that they are of."""
  return np.roll(rows_TK, 1, axis=0)
