"""Sampling from a language model, one token at a time.

Shapes: B batch, L length, V vocabulary.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from train import types

# (cache, token_B1) -> (logits_BV, cache)
Step = Callable[[Any, jax.Array], tuple[jax.Array, Any]]
# One for all rows, or [B].
PerRow = jax.Array | float
_HEAD = 1024


def filter_logits(
  logits_BV: jax.Array,
  top_k: PerRow | int | None = None,
  top_p: PerRow | None = None,
  min_p: PerRow | None = None,
) -> jax.Array:
  """Logits with -inf on what top-k, then the nucleus, then min-p leaves out.

  Tokens are ranked by logit, ties by lower id first. The nucleus is the
  smallest set of best tokens whose probability, among those that top-k keeps,
  is >= top_p (Holtzman et al., arXiv:1904.09751, equation 2). Min-p keeps what
  is at least min_p times as probable as the best token (Nguyen et al.,
  arXiv:2407.01082).

  Args:
    logits_BV: any float dtype.
    top_k: how many tokens to keep; static, or int32 [B], where V or more keeps
      all.
    top_p: above 0; 1 keeps all; static, or [B].
    min_p: 0 keeps all, 1 the best and its equals; static, or [B].

  Returns:
    float32 logits_BV.

  Raises:
    ValueError: static, top_k < 1, top_p outside (0, 1], min_p outside [0, 1].
  """
  if _static(top_k) and top_k < 1:
    raise ValueError(f"top_k={top_k} is below 1")
  if _static(top_p) and not 0 < top_p <= 1:
    raise ValueError(f"top_p={top_p} is outside (0, 1]")
  if _static(min_p) and not 0 <= min_p <= 1:
    raise ValueError(f"min_p={min_p} is outside [0, 1]")
  logits_BV = logits_BV.astype(jnp.float32)
  kept_BV = logits_BV
  if top_k is not None or top_p is not None:
    keep_BV = _best(logits_BV, top_k, top_p)
    kept_BV = jnp.where(keep_BV, logits_BV, -jnp.inf)
  if min_p is not None:
    best_B1 = jnp.max(logits_BV, axis=-1, keepdims=True)
    floor_B1 = best_B1 + jnp.log(_column(min_p))
    kept_BV = jnp.where(logits_BV >= floor_B1, kept_BV, -jnp.inf)
  return kept_BV


def _static(value) -> bool:
  return isinstance(value, int | float)


def _column(value: PerRow) -> jax.Array:
  """[B, 1] of what is [B], and [1, 1] of a scalar."""
  return jnp.reshape(jnp.asarray(value), (-1, 1))


def _best(logits_BV, top_k, top_p) -> jax.Array:
  """Bool [B, V]: what top-k and the nucleus keep.

  Where the best _HEAD tokens of every row hold all that it keeps, no others
  are sorted: to sort a vocabulary can take longer than the model's step.
  """
  B, V = logits_BV.shape
  ones_B1 = jnp.ones((B, 1), jnp.int32)
  k_B1 = ones_B1 * V if top_k is None else ones_B1 * _column(top_k)
  p_B1 = ones_B1 * (1.0 if top_p is None else _column(top_p))
  all_B1 = (k_B1 >= V) & (p_B1 >= 1)
  whole_B1 = jax.nn.logsumexp(logits_BV, axis=-1, keepdims=True)

  def of_sorted(sorted_BM):
    """(how many tokens are kept, whether the M best hold them), [B, 1]."""
    M = sorted_BM.shape[1]
    keep_BM = jnp.arange(M)[None] < k_B1
    sorted_BM = jnp.where(keep_BM, sorted_BM, -jnp.inf)
    own_B1 = jax.nn.logsumexp(sorted_BM, axis=-1, keepdims=True)
    log_sum_B1 = jnp.where(k_B1 < V, own_B1, whole_B1)
    sums_BM = jnp.cumsum(jnp.exp(sorted_BM - log_sum_B1), axis=-1)
    before_BM = jnp.pad(sums_BM[:, :-1], ((0, 0), (1, 0)))
    # A token stays if those before it fall short of top_p. Where that is 1,
    # rounding in the sums would cut the tail.
    keep_BM &= (before_BM < p_B1) | (p_B1 >= 1)
    held_B1 = (k_B1 <= M) | ((k_B1 >= V) & (sums_BM[:, -1:] >= p_B1))
    return jnp.sum(keep_BM, axis=-1, keepdims=True), held_B1

  def cut(sorted_BM):
    count_B1, _ = of_sorted(sorted_BM)
    last_B1 = jnp.take_along_axis(sorted_BM, count_B1 - 1, axis=-1)
    above_BV, equal_BV = logits_BV > last_B1, logits_BV == last_B1
    # Of those equal to the last that is kept, the lower ids.
    room_B1 = count_B1 - jnp.sum(above_BV, axis=-1, keepdims=True)
    return above_BV | (equal_BV & (jnp.cumsum(equal_BV, axis=-1) <= room_B1))

  def of_all(_):
    return cut(-jnp.sort(-logits_BV, axis=-1))

  if V <= _HEAD:
    return all_B1 | of_all(None)
  head_BM = jax.lax.top_k(logits_BV, _HEAD)[0]
  held_B1 = all_B1 | of_sorted(head_BM)[1]
  return all_B1 | jax.lax.cond(jnp.all(held_B1), cut, of_all, head_BM)


def penalize(
  logits_BV: jax.Array, seen_BV: jax.Array, penalty: PerRow
) -> jax.Array:
  """Logits, float32, of the tokens seen pushed down by a factor.

  A positive logit is divided by the penalty and a negative one multiplied
  (CTRL, arXiv:1909.05858, as it is commonly extended to negative logits).

  Args:
    logits_BV: before the temperature.
    seen_BV: bool, what stands in the row's text so far.
    penalty: 1 changes nothing; scalar or [B].
  """
  logits_BV = logits_BV.astype(jnp.float32)
  penalty = _column(penalty)
  pushed_BV = jnp.where(logits_BV > 0, logits_BV / penalty, logits_BV * penalty)
  return jnp.where(seen_BV, pushed_BV, logits_BV)


def sample_logits(
  logits_BV: jax.Array,
  rng: jax.Array,
  temperature: PerRow = 1.0,
  top_k: PerRow | int | None = None,
  top_p: PerRow | None = None,
  min_p: PerRow | None = None,
) -> jax.Array:
  """One token id a row, int32 [B], from softmax(logits / temperature).

  Args:
    logits_BV: any float dtype.
    rng: a key, or keys [B], one a row: then what a row draws is its own.
    temperature: scalar or [B]; where it is 0, the best token (of equals the
      lowest id).
    top_k: see `filter_logits`, which sees the logits after the temperature.
    top_p: likewise.
    min_p: likewise.

  Raises:
    ValueError: from `filter_logits`.
  """
  kept_BV, greedy_B1 = _tempered(logits_BV, temperature, top_k, top_p, min_p)
  draw = jax.random.categorical
  if jnp.issubdtype(rng.dtype, jax.dtypes.prng_key) and rng.ndim == 1:
    draw = jax.vmap(draw)
  drawn = draw(rng, kept_BV)
  best = jnp.argmax(logits_BV.astype(jnp.float32), axis=-1)
  return jnp.where(greedy_B1[:, 0], best, drawn).astype(jnp.int32)


def distribution(
  logits_BV: jax.Array,
  temperature: PerRow = 1.0,
  top_k: PerRow | int | None = None,
  top_p: PerRow | None = None,
  min_p: PerRow | None = None,
) -> jax.Array:
  """float32 probabilities [B, V] with which `sample_logits` draws.

  Args:
    logits_BV: any float dtype.
    temperature: see `sample_logits`; so the others.
    top_k: see `filter_logits`.
    top_p: likewise.
    min_p: likewise.

  Raises:
    ValueError: from `filter_logits`.
  """
  kept_BV, greedy_B1 = _tempered(logits_BV, temperature, top_k, top_p, min_p)
  best = jnp.argmax(logits_BV.astype(jnp.float32), axis=-1)
  sure_BV = jax.nn.one_hot(best, logits_BV.shape[-1])
  return jnp.where(greedy_B1, sure_BV, jax.nn.softmax(kept_BV, axis=-1))


def _tempered(logits_BV, temperature, top_k, top_p, min_p):
  """(what is kept of the logits / temperature, where that is 0 [B, 1])."""
  temperature = jnp.broadcast_to(
    jnp.asarray(temperature, jnp.float32), logits_BV.shape[:1]
  )
  greedy_B1 = _column(temperature <= 0)
  divisor_B1 = jnp.where(greedy_B1, 1, _column(temperature))
  logits_BV = logits_BV.astype(jnp.float32) / divisor_B1
  return filter_logits(logits_BV, top_k, top_p, min_p), greedy_B1


def generate(
  step: Step,
  cache: Any,
  tokens_BL: jax.Array,
  prompt_mask_BL: jax.Array,
  rng: jax.Array,
  *,
  temperature: jax.Array | float = 1.0,
  top_k: int | None = None,
  top_p: float | None = None,
) -> jax.Array:
  """Fills tokens_BL after each row's prompt, by one scan over positions.

  At position i the token there is fed to `step`; where position i + 1 is not of
  the prompt, it receives one drawn from the logits with the key folded from i.

  Args:
    step: (cache, token_B1) -> (logits_BV, cache), for the next position.
    cache: before anything has been fed.
    tokens_BL: integers; what stands after the prompts is ignored.
    prompt_mask_BL: 1 on the prompt, a prefix of at least one token; prompts may
      differ in length.
    rng: a key.
    temperature: scalar or [B]; 0 is greedy.
    top_k: see `filter_logits`.
    top_p: see `filter_logits`.

  Returns:
    tokens_BL, of the type given.
  """
  given_LB = jnp.swapaxes(tokens_BL, 0, 1)
  prompt_LB = jnp.swapaxes(prompt_mask_BL, 0, 1) > 0

  def body(carry, inputs):
    token, cache = carry
    position, given, prompt = inputs
    logits_BV, cache = step(cache, jnp.expand_dims(token, 1))
    key = jax.random.fold_in(rng, position)
    drawn = sample_logits(logits_BV, key, temperature, top_k, top_p)
    token = jnp.where(prompt, given, drawn.astype(given.dtype))
    return (token, cache), token

  positions = jnp.arange(tokens_BL.shape[1] - 1)
  _, rest_LB = jax.lax.scan(
    body, (given_LB[0], cache), (positions, given_LB[1:], prompt_LB[1:])
  )
  return jnp.swapaxes(jnp.concatenate([given_LB[:1], rest_LB]), 0, 1)


def window_step(
  logits_of: Callable[[jax.Array, jax.Array], jax.Array],
  batch_size: int,
  window: int,
) -> tuple[Step, Any]:
  """(step, cache) that reads the last `window` tokens anew at each position.

  For texts longer than what a model was made for: slow, and without limit. The
  cache is (tokens_BW, count [B]): what was fed last, and how much was fed.

  Args:
    logits_of: (tokens_BW, place [B]) -> logits_BV after the token at a row's
      place; causal.
    batch_size: B.
    window: W.
  """

  def step(cache, token_B1):
    tokens_BW, count_B = cache
    full_B1 = jnp.expand_dims(count_B >= window, 1)
    tokens_BW = jnp.where(full_B1, jnp.roll(tokens_BW, -1, 1), tokens_BW)
    place_B = jnp.minimum(count_B, window - 1)
    rows_B = jnp.arange(batch_size)
    tokens_BW = tokens_BW.at[rows_B, place_B].set(token_B1[:, 0])
    return logits_of(tokens_BW, place_B), (tokens_BW, count_B + 1)

  tokens_BW = jnp.zeros((batch_size, window), jnp.int32)
  return step, (tokens_BW, jnp.zeros((batch_size,), jnp.int32))


def logits_at(
  model, variables: types.Variables, tokens_BT: jax.Array, place_B: jax.Array
) -> jax.Array:
  """float32 logits_BV after the token at each row's place, and no others."""

  def of_row(x_BTY):
    return jnp.take_along_axis(x_BTY, place_B[:, None, None], axis=1)[:, 0]

  args = (variables.params, variables.model_state, tokens_BT)
  if not model.represents:
    return of_row(model.apply(*args)[0])
  found = model.apply(*args, method="represent")[0]
  return jnp.einsum(
    "BD,VD->BV",
    of_row(found.x_BTD),
    found.unembedding_VD,
    preferred_element_type=jnp.float32,
  )


def stepper(
  model, variables: types.Variables, batch_size: int, length: int
) -> tuple[Step, types.PyTree]:
  """(step, cache) for `generate` to write texts of `length` tokens.

  With the model's KV cache while `length` is within its max_len; beyond, each
  token is drawn from the window of the last max_len.
  """

  def apply(tokens_BT, **kwargs):
    return model.apply(
      variables.params, variables.model_state, tokens_BT, **kwargs
    )[0]

  if model.max_len is not None and length > model.max_len:
    at = functools.partial(logits_at, model, variables)
    return window_step(at, batch_size, model.max_len)

  def step(cache, token_B1):
    logits_B1V, cache = apply(token_B1, cache=cache)
    return logits_B1V[:, -1], cache

  return step, model.init_cache(batch_size, length)
