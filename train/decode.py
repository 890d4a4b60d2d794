"""Sampling from a language model, one token at a time.

Shapes: B batch, L length, V vocabulary.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from train import types

# (cache, token_B1) -> (logits_BV, cache)
Step = Callable[[Any, jax.Array], tuple[jax.Array, Any]]


def filter_logits(
  logits_BV: jax.Array, top_k: int | None = None, top_p: float | None = None
) -> jax.Array:
  """Logits with -inf on what top-k, then the nucleus, leaves out.

  Tokens are ranked by logit, ties by lower id first. The nucleus is the
  smallest set of best tokens whose probability, among those that top-k keeps,
  is >= top_p (Holtzman et al., arXiv:1904.09751, equation 2).

  Args:
    logits_BV: any float dtype.
    top_k: how many tokens to keep; static.
    top_p: above 0; 1 keeps all; static.

  Returns:
    float32 logits_BV.

  Raises:
    ValueError: top_k < 1, or top_p outside (0, 1].
  """
  if top_k is not None and top_k < 1:
    raise ValueError(f"top_k={top_k} is below 1")
  if top_p is not None and not 0 < top_p <= 1:
    raise ValueError(f"top_p={top_p} is outside (0, 1]")
  logits_BV = logits_BV.astype(jnp.float32)
  if top_p == 1:
    top_p = None  # rounding in the sums would cut the tail
  if top_k is None and top_p is None:
    return logits_BV
  order_BV = jnp.argsort(-logits_BV, axis=-1, stable=True)
  sorted_BV = jnp.take_along_axis(logits_BV, order_BV, axis=-1)
  keep_BV = jnp.ones(logits_BV.shape, bool)
  if top_k is not None:
    rank_V = jnp.arange(logits_BV.shape[-1])
    keep_BV &= jnp.expand_dims(rank_V < top_k, 0)
    sorted_BV = jnp.where(keep_BV, sorted_BV, -jnp.inf)
  if top_p is not None:
    sums_BV = jnp.cumsum(jax.nn.softmax(sorted_BV, axis=-1), axis=-1)
    # A token stays if those before it fall short of top_p.
    keep_BV &= jnp.pad(sums_BV[:, :-1], ((0, 0), (1, 0))) < top_p
  rank_BV = jnp.argsort(order_BV, axis=-1)
  keep_BV = jnp.take_along_axis(keep_BV, rank_BV, axis=-1)
  return jnp.where(keep_BV, logits_BV, -jnp.inf)


def sample_logits(
  logits_BV: jax.Array,
  rng: jax.Array,
  temperature: jax.Array | float = 1.0,
  top_k: int | None = None,
  top_p: float | None = None,
) -> jax.Array:
  """One token id a row, int32 [B], from softmax(logits / temperature).

  Args:
    logits_BV: any float dtype.
    rng: a key.
    temperature: scalar or [B]; where it is 0, the best token (of equals the
      lowest id).
    top_k: see `filter_logits`, which sees the logits after the temperature.
    top_p: likewise.

  Raises:
    ValueError: from `filter_logits`.
  """
  logits_BV = logits_BV.astype(jnp.float32)
  temperature = jnp.broadcast_to(
    jnp.asarray(temperature, jnp.float32), logits_BV.shape[:1]
  )
  greedy = temperature <= 0
  divisor_B1 = jnp.expand_dims(jnp.where(greedy, 1, temperature), 1)
  kept_BV = filter_logits(logits_BV / divisor_B1, top_k, top_p)
  drawn = jax.random.categorical(rng, kept_BV, axis=-1)
  best = jnp.argmax(logits_BV, axis=-1)
  return jnp.where(greedy, best, drawn).astype(jnp.int32)


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
  logits_of: Callable[[jax.Array], jax.Array], batch_size: int, window: int
) -> tuple[Step, Any]:
  """(step, cache) that reads the last `window` tokens anew at each position.

  For texts longer than what a model was made for: slow, and without limit.

  Args:
    logits_of: tokens_BW -> logits_BWV, causal.
    batch_size: B.
    window: W.
  """

  def step(cache, token_B1):
    tokens_BW, count = cache
    slid_BW = jnp.where(count < window, tokens_BW, jnp.roll(tokens_BW, -1, 1))
    place = jnp.minimum(count, window - 1)
    tokens_BW = jax.lax.dynamic_update_slice(slid_BW, token_B1, (0, place))
    logits_BWV = logits_of(tokens_BW)
    logits_BV = jax.lax.dynamic_index_in_dim(
      logits_BWV, place, axis=1, keepdims=False
    )
    return logits_BV, (tokens_BW, count + 1)

  tokens_BW = jnp.zeros((batch_size, window), jnp.int32)
  return step, (tokens_BW, jnp.zeros((), jnp.int32))


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
    return window_step(apply, batch_size, model.max_len)

  def step(cache, token_B1):
    logits_B1V, cache = apply(token_B1, cache=cache)
    return logits_B1V[:, -1], cache

  return step, model.init_cache(batch_size, length)
