"""Beam search, sampling and greedy decoding, up to an end token.

Each function is a pure loop over a sampling.Step. There is no prompt: decoding
begins after a start token. In a cache, a leaf with two or more axes has the
rows on its second axis, a leaf with one axis has them on that axis, and a
scalar is shared by all rows.

Shapes: B rows, K beams, C candidates, L length, V vocabulary, N = B K.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from train import types
from train.generation.sampling import Step, is_end, sample_logits


class Written(NamedTuple):
  """The decoded texts, sorted by score within each row.

  tokens_BKL: int32, the text, its end token if there is one, then `pad`.
  lengths_BK: int32, the number of tokens without the end token.
  scores_BK: float32, the log-probability of the text and its end token, divided
    by the length penalty; -inf if fewer than K texts were found.
  """

  tokens_BKL: jax.Array
  lengths_BK: jax.Array
  scores_BK: jax.Array


def length_penalty(length: jax.Array | int, alpha: float) -> jax.Array:
  """Returns ((5 + n) / 6)^alpha (Wu et al., arXiv:1609.08144, equation 14)."""
  return ((5.0 + jnp.asarray(length, jnp.float32)) / 6.0) ** alpha


def beam_search(
  step: Step,
  cache: types.PyTree,
  start_B: jax.Array,
  *,
  beams: int,
  length: int,
  eos: int | Sequence[int],
  limit_B: jax.Array | None = None,
  alpha: float = 0.6,
  early_stop: bool = False,
  pad: int = 0,
) -> Written:
  """Returns the K most likely texts that a search with K beams finds.

  At each position the 2K best continuations are considered, K more for each
  further end token. Those among the
  first K that end are finished texts, ranked by log-probability divided by the
  length penalty. The K best that do not end remain live. A row is done when no
  live beam can surpass the worst of K finished texts, even at the maximum
  length.

  Args:
    step: (cache, token_N1) -> (logits_NV, cache), the logits of the next
      position.
    cache: an empty cache of B rows.
    start_B: int32, the token that is fed first.
    beams: K.
    length: L, the maximum number of tokens per row, including the end token.
    eos: the end token, or several.
    limit_B: int32, the maximum number of tokens of each row; a text that has
      not ended by then counts as finished. L if None.
    alpha: the exponent of the length penalty; 0 disables it.
    early_stop: whether a row is done as soon as K texts are finished.
    pad: the token that fills the row after the end token.

  Raises:
    ValueError: beams < 1, length < 1 or alpha < 0.
  """
  if beams < 1:
    raise ValueError(f"beams={beams} is below 1")
  if alpha < 0:
    raise ValueError(f"alpha={alpha} is negative")
  limit_B = _limits(limit_B, start_B, length)
  (B,), K = start_B.shape, beams
  rank_K = jnp.arange(K)
  kinds = 1 if isinstance(eos, int) else len(eos)

  def body(carry):
    i, cache, live_BKL, live_BK, found_BKL, found_BK, done_B = carry
    before_BK = jax.lax.dynamic_index_in_dim(
      live_BKL, jnp.maximum(i - 1, 0), 2, keepdims=False
    )
    token_BK = jnp.where(i == 0, start_B[:, None], before_BK)
    logits_NV, grown = step(cache, token_BK.reshape(B * K, 1))
    logits_BKV = logits_NV.astype(jnp.float32).reshape(B, K, -1)
    V = logits_BKV.shape[-1]
    most = min(1 + kinds, V) * K
    sums_BKV = live_BK[..., None] + jax.nn.log_softmax(logits_BKV, axis=-1)
    sums_BC, flat_BC = jax.lax.top_k(sums_BKV.reshape(B, K * V), most)
    beam_BC, next_BC = flat_BC // V, (flat_BC % V).astype(jnp.int32)
    texts_BCL = _rows(live_BKL, beam_BC)
    texts_BCL = jax.lax.dynamic_update_index_in_dim(
      texts_BCL, next_BC[..., None], i, 2
    )
    ends_BC = is_end(next_BC, eos) | (i + 1 >= limit_B)[:, None]

    new_BC = sums_BC / length_penalty(i + 1, alpha)
    counts_BC = ends_BC & (jnp.arange(sums_BC.shape[1]) < K)[None]
    counts_BC &= ~done_B[:, None]
    new_BC = jnp.where(counts_BC, new_BC, -jnp.inf)
    found_BK, at_BK = jax.lax.top_k(
      jnp.concatenate([found_BK, new_BC], axis=1), K
    )
    found_BKL = _rows(jnp.concatenate([found_BKL, texts_BCL], axis=1), at_BK)

    live_BK, at_BK = jax.lax.top_k(jnp.where(ends_BC, -jnp.inf, sums_BC), K)
    beam_BK = jnp.take_along_axis(beam_BC, at_BK, axis=1)
    from_N = (jnp.arange(B)[:, None] * K + beam_BK).reshape(-1)
    cache = _reordered(cache, grown, from_N)

    bound_B = live_BK[:, 0] / length_penalty(limit_B, alpha)
    done_B |= bound_B <= found_BK[:, -1]
    if early_stop:
      done_B |= found_BK[:, -1] > -jnp.inf
    live_BKL = _rows(texts_BCL, at_BK)
    return i + 1, cache, live_BKL, live_BK, found_BKL, found_BK, done_B

  def goes_on(carry):
    return (carry[0] < length) & ~jnp.all(carry[-1])

  nothing_BKL = jnp.full((B, K, length), pad, jnp.int32)
  lowest_BK = jnp.full((B, K), -jnp.inf)
  first_BK = jnp.where((rank_K == 0)[None], 0.0, lowest_BK)
  carry = (
    jnp.zeros((), jnp.int32),
    jax.tree.map(lambda x: _tiled(x, K), cache),
    nothing_BKL,
    first_BK,
    nothing_BKL,
    lowest_BK,
    jnp.zeros(B, bool),
  )
  *_, found_BKL, found_BK, _ = jax.lax.while_loop(goes_on, body, carry)
  return _written(found_BKL, found_BK, eos, limit_B, pad)


def sample(
  step: Step,
  cache: types.PyTree,
  start_B: jax.Array,
  rng: jax.Array,
  *,
  length: int,
  eos: int | Sequence[int],
  limit_B: jax.Array | None = None,
  temperature: jax.Array | float = 0.0,
  top_k: int | None = None,
  top_p: float | None = None,
  pad: int = 0,
) -> Written:
  """Samples one text per row (K = 1) token by token; temperature 0 is greedy.

  The scores are the model's unfiltered log-probabilities at temperature 1,
  independent of the sampling options.

  Args:
    step: see `beam_search`.
    cache: see `beam_search`.
    start_B: see `beam_search`.
    rng: a key.
    length: see `beam_search`.
    eos: see `beam_search`.
    limit_B: see `beam_search`.
    temperature: see sampling.sample_logits; the default of 0 is greedy.
    top_k: see sampling.filter_logits.
    top_p: see sampling.filter_logits.
    pad: see `beam_search`.

  Raises:
    ValueError: length < 1, or from sampling.filter_logits.
  """
  limit_B = _limits(limit_B, start_B, length)
  B = start_B.shape[0]

  def body(carry):
    i, cache, token_B, tokens_BL, sum_B, done_B = carry
    logits_BV, cache = step(cache, token_B[:, None])
    key = jax.random.fold_in(rng, i)
    token_B = sample_logits(logits_BV, key, temperature, top_k, top_p)
    logits_BV = jax.nn.log_softmax(logits_BV.astype(jnp.float32), axis=-1)
    own_B = jnp.take_along_axis(logits_BV, token_B[:, None], axis=1)[:, 0]
    sum_B += jnp.where(done_B, 0, own_B)
    token_B = jnp.where(done_B, pad, token_B)
    tokens_BL = jax.lax.dynamic_update_index_in_dim(
      tokens_BL, token_B[:, None], i, 1
    )
    done_B |= is_end(token_B, eos) | (i + 1 >= limit_B)
    return i + 1, cache, token_B, tokens_BL, sum_B, done_B

  def goes_on(carry):
    return (carry[0] < length) & ~jnp.all(carry[-1])

  carry = (
    jnp.zeros((), jnp.int32),
    cache,
    start_B.astype(jnp.int32),
    jnp.full((B, length), pad, jnp.int32),
    jnp.zeros(B),
    jnp.zeros(B, bool),
  )
  _, _, _, tokens_BL, sum_B, _ = jax.lax.while_loop(goes_on, body, carry)
  return _written(tokens_BL[:, None], sum_B[:, None], eos, limit_B, pad)


def write(
  model,
  variables: types.Variables,
  inputs_BS: jax.Array,
  segments_BS: jax.Array | None,
  rng: jax.Array,
  *,
  length: int,
  eos: int | Sequence[int],
  start: int = 0,
  ratio: float = 1.5,
  extra: int = 10,
  beams: int | None = None,
  alpha: float = 0.6,
  temperature: jax.Array | float = 0.0,
) -> Written:
  """Generates an encoder-decoder's output for each row of inputs.

  A row's output has at most floor(ratio * n + extra) tokens, where n is the
  number of its input tokens.

  Args:
    model: see models/language/encoder_decoder.py.
    variables: the model's variables.
    inputs_BS: int32, one text per row.
    segments_BS: 0 on padding; None if there is no padding.
    rng: a key.
    length: L, the maximum number of tokens of any row.
    eos: the end token, or several.
    start: the token that the decoder reads first.
    ratio: output tokens allowed per input token.
    extra: output tokens allowed in addition.
    beams: the number of beams; None samples instead of searching.
    alpha: the exponent of beam search's length penalty.
    temperature: the sampling temperature; 0 is greedy.
  """
  given = (variables.params, variables.model_state)
  cache, _ = model.apply(
    *given, inputs_BS, segments_BS, method="start", length=length
  )

  def step(cache, token_B1):
    (logits_B1V, cache), _ = model.apply(
      *given, token_B1, cache, method="decode"
    )
    return logits_B1V[:, -1], cache

  B, S = inputs_BS.shape
  real_B = jnp.full(B, S)
  if segments_BS is not None:
    real_B = jnp.sum(segments_BS > 0, axis=1)
  limit_B = jnp.floor(ratio * real_B + extra).astype(jnp.int32)
  options = {"length": length, "eos": eos, "limit_B": limit_B}
  start_B = jnp.full(B, start, jnp.int32)
  if beams is not None:
    how = {"beams": beams, "alpha": alpha}
    return beam_search(step, cache, start_B, **how, **options)
  return sample(step, cache, start_B, rng, temperature=temperature, **options)


def _limits(limit_B, start_B, length: int) -> jax.Array:
  if length < 1:
    raise ValueError(f"length={length} leaves no room for a token")
  if limit_B is None:
    limit_B = jnp.full(start_B.shape, length)
  return jnp.clip(limit_B, 1, length).astype(jnp.int32)


def _written(tokens_BKL, scores_BK, eos, limit_B, pad) -> Written:
  ended_BKL = is_end(tokens_BKL, eos)
  # The first end token counts: `pad` may have the same id.
  end_BK = jnp.where(ended_BKL.any(-1), ended_BKL.argmax(-1), limit_B[:, None])
  lengths_BK = jnp.minimum(end_BK, limit_B[:, None])
  lengths_BK = jnp.where(scores_BK > -jnp.inf, lengths_BK, 0)
  place_L = jnp.arange(tokens_BKL.shape[-1])
  real_BKL = place_L[None, None] <= lengths_BK[..., None]
  real_BKL &= (scores_BK > -jnp.inf)[..., None]
  tokens_BKL = jnp.where(real_BKL, tokens_BKL, pad)
  return Written(tokens_BKL, lengths_BK.astype(jnp.int32), scores_BK)


def _rows(texts_BKL: jax.Array, at_BC: jax.Array) -> jax.Array:
  """Gathers the texts at indices at_BC of each row."""
  return jnp.take_along_axis(texts_BKL, at_BC[..., None], axis=1)


def _axis(leaf: jax.Array) -> int:
  """Returns the axis of a cache leaf that indexes the rows."""
  return min(leaf.ndim - 1, 1)


def _tiled(leaf: jax.Array, times: int) -> jax.Array:
  return leaf if leaf.ndim == 0 else jnp.repeat(leaf, times, axis=_axis(leaf))


def _reordered(before, after, from_N: jax.Array):
  """Gathers the rows from_N of the cache after a step.

  A leaf that the step returns unchanged is the same for all beams of a row and
  is not gathered.
  """

  def one(old, new):
    if new is old or new.ndim == 0:
      return new
    return jnp.take(new, from_N, axis=_axis(new))

  return jax.tree.map(one, before, after)
