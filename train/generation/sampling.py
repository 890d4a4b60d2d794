"""Sampling from a language model, one token at a time.

Shapes: B batch, L length, V vocabulary.
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp

from train import types

# (cache, token_B1) -> (logits_BV, cache)
Step = Callable[[Any, jax.Array], tuple[jax.Array, Any]]
# A scalar shared by all rows, or one value per row, [B].
PerRow = jax.Array | float
_HEAD = 1024


def filter_logits(
  logits_BV: jax.Array,
  top_k: PerRow | int | None = None,
  top_p: PerRow | None = None,
  min_p: PerRow | None = None,
) -> jax.Array:
  """Masks logits with top-k, then nucleus (top-p), then min-p filtering.

  Tokens are ranked by logit; of equal logits, the lower id ranks first. The
  nucleus is the smallest set of highest-ranked tokens whose probability,
  normalized over the tokens kept by top-k, is >= top_p (Holtzman et al.,
  arXiv:1904.09751, equation 2). Min-p keeps the tokens that are at least min_p
  times as probable as the most likely one (Nguyen et al., arXiv:2407.01082).

  Args:
    logits_BV: logits, of any float dtype.
    top_k: number of tokens to keep; a static number, or int32 [B], where a
      value of V or more keeps all tokens.
    top_p: probability mass to keep, above 0; 1 keeps all tokens. A static
      number, or [B].
    min_p: minimum relative probability; 0 keeps all tokens, 1 only the most
      likely one and its equals. A static number, or [B].

  Returns:
    float32 logits_BV, with -inf for the tokens that are filtered out.

  Raises:
    ValueError: a static top_k < 1, top_p outside (0, 1] or min_p outside
      [0, 1].
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
  """Reshapes [B] to [B, 1] and a scalar to [1, 1]."""
  return jnp.reshape(jnp.asarray(value), (-1, 1))


def _best(logits_BV, top_k, top_p) -> jax.Array:
  """Returns a bool mask [B, V] of the tokens that top-k and top-p keep.

  If every row keeps only tokens among its _HEAD highest logits, the rest is
  not sorted: sorting the vocabulary can take longer than the model's step.
  """
  B, V = logits_BV.shape
  ones_B1 = jnp.ones((B, 1), jnp.int32)
  k_B1 = ones_B1 * V if top_k is None else ones_B1 * _column(top_k)
  p_B1 = ones_B1 * (1.0 if top_p is None else _column(top_p))
  all_B1 = (k_B1 >= V) & (p_B1 >= 1)
  whole_B1 = jax.nn.logsumexp(logits_BV, axis=-1, keepdims=True)

  def of_sorted(sorted_BM):
    """Returns (number of kept tokens, whether the M best suffice), [B, 1]."""
    M = sorted_BM.shape[1]
    keep_BM = jnp.arange(M)[None] < k_B1
    sorted_BM = jnp.where(keep_BM, sorted_BM, -jnp.inf)
    own_B1 = jax.nn.logsumexp(sorted_BM, axis=-1, keepdims=True)
    log_sum_B1 = jnp.where(k_B1 < V, own_B1, whole_B1)
    sums_BM = jnp.cumsum(jnp.exp(sorted_BM - log_sum_B1), axis=-1)
    before_BM = jnp.pad(sums_BM[:, :-1], ((0, 0), (1, 0)))
    # A token is kept if the tokens before it sum to less than top_p. All are
    # kept for top_p = 1, where rounding in the sums would cut the tail.
    keep_BM &= (before_BM < p_B1) | (p_B1 >= 1)
    held_B1 = (k_B1 <= M) | ((k_B1 >= V) & (sums_BM[:, -1:] >= p_B1))
    return jnp.sum(keep_BM, axis=-1, keepdims=True), held_B1

  def cut(sorted_BM):
    count_B1, _ = of_sorted(sorted_BM)
    last_B1 = jnp.take_along_axis(sorted_BM, count_B1 - 1, axis=-1)
    above_BV, equal_BV = logits_BV > last_B1, logits_BV == last_B1
    # Among the tokens that tie with the last one kept, the lower ids win.
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
  """Applies a repetition penalty to the logits of tokens already seen.

  A positive logit is divided by the penalty, a negative one is multiplied by
  it (CTRL, arXiv:1909.05858, with the common extension to negative logits).

  Args:
    logits_BV: logits before the temperature is applied.
    seen_BV: bool, the tokens that the row's text contains so far.
    penalty: the factor, a scalar or [B]; 1 applies no penalty.

  Returns:
    float32 logits_BV.
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
  """Samples one token id per row from softmax(logits / temperature).

  Args:
    logits_BV: logits, of any float dtype.
    rng: one key, or one key per row, [B], which makes a row's sample
      independent of the other rows.
    temperature: scalar or [B]; 0 selects the most likely token (of equal
      logits, the lowest id).
    top_k: see `filter_logits`, which receives the logits divided by the
      temperature.
    top_p: see `filter_logits`.
    min_p: see `filter_logits`.

  Returns:
    Token ids, int32 [B].

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
  """Returns the distribution that `sample_logits` samples from.

  Args:
    logits_BV: logits, of any float dtype.
    temperature: see `sample_logits`.
    top_k: see `filter_logits`.
    top_p: see `filter_logits`.
    min_p: see `filter_logits`.

  Returns:
    float32 probabilities [B, V].

  Raises:
    ValueError: from `filter_logits`.
  """
  kept_BV, greedy_B1 = _tempered(logits_BV, temperature, top_k, top_p, min_p)
  best = jnp.argmax(logits_BV.astype(jnp.float32), axis=-1)
  sure_BV = jax.nn.one_hot(best, logits_BV.shape[-1])
  return jnp.where(greedy_B1, sure_BV, jax.nn.softmax(kept_BV, axis=-1))


def _tempered(logits_BV, temperature, top_k, top_p, min_p):
  """Returns (filtered logits / temperature, mask of greedy rows [B, 1])."""
  temperature = jnp.broadcast_to(
    jnp.asarray(temperature, jnp.float32), logits_BV.shape[:1]
  )
  greedy_B1 = _column(temperature <= 0)
  divisor_B1 = jnp.where(greedy_B1, 1, _column(temperature))
  logits_BV = logits_BV.astype(jnp.float32) / divisor_B1
  return filter_logits(logits_BV, top_k, top_p, min_p), greedy_B1


def is_end(tokens: jax.Array, ends: int | Iterable[int]) -> jax.Array:
  """Returns a bool array: whether each token is one of those that end a text.

  Args:
    tokens: int32 ids, of any shape.
    ends: an id, or several.
  """
  found = jnp.zeros(tokens.shape, bool)
  for end in (ends,) if isinstance(ends, int) else ends:
    found |= tokens == end
  return found


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
  """Continues each row's prompt to length L with one scan over positions.

  The token at position i is fed to `step`. If position i + 1 is not part of
  the prompt, it is sampled from the resulting logits with
  `jax.random.fold_in(rng, i)`.

  Args:
    step: (cache, token_B1) -> (logits_BV, cache), the logits of the next
      position.
    cache: an empty cache.
    tokens_BL: integer ids; those after each prompt are ignored.
    prompt_mask_BL: 1 on the prompt, which is a prefix of at least one token;
      prompts may differ in length.
    rng: a key.
    temperature: scalar or [B]; 0 is greedy.
    top_k: see `filter_logits`.
    top_p: see `filter_logits`.

  Returns:
    tokens_BL with the sampled tokens, in the dtype of the input.
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
  """Returns (step, cache) that recompute the last `window` tokens every step.

  This is for texts longer than the model's max_len: slow, but without a limit
  on the length. The cache is (tokens_BW, count [B]): the most recent tokens,
  and the number of tokens fed so far.

  Args:
    logits_of: (tokens_BW, place [B]) -> logits_BV that follow the token at
      index `place` of each row; it must be causal.
    batch_size: B.
    window: W, in tokens.
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
  """Returns float32 logits_BV at index `place_B` of each row only."""

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
  """Returns (step, cache) with which `generate` produces `length` tokens.

  They use the model's KV cache if `length` is within its max_len. For longer
  texts, each token is computed from the last max_len tokens (`window_step`).
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
