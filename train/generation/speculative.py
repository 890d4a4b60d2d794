"""Speculative decoding (Leviathan et al., arXiv:2211.17192).

A small model drafts G tokens, and the large model scores them in one pass. A
drafted token x is accepted with probability min(1, p(x) / q(x)), where p and q
are the distributions of the large and the small model. The first rejected token
is sampled again from max(p - q, 0), normalized. The text therefore has exactly
the distribution of the large model, however good or bad the draft is.

Shapes: B rows, G drafted tokens, T = G + 1 tokens scored by the large model,
V vocabulary.
"""

import jax
import jax.numpy as jnp

from common.errors import UserError
from train.generation import decoding_programs


def accept(
  p_TV: jax.Array, q_GV: jax.Array, drafted_G: jax.Array, rng: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Returns (number of accepted tokens, the token after them), both int32.

  Args:
    p_TV: the large model's distributions at each drafted token and at the token
      after the last one.
    q_GV: the distributions from which the drafted tokens were sampled.
    drafted_G: the drafted token ids, int32.
    rng: an unused key.
  """
  G = len(drafted_G)
  chance, again = jax.random.split(rng)
  places_G = jnp.arange(G)
  p_G, q_G = p_TV[places_G, drafted_G], q_GV[places_G, drafted_G]
  kept_G = jax.random.uniform(chance, (G,)) * q_G < p_G
  count = jnp.sum(jnp.cumprod(kept_G.astype(jnp.int32)))
  p_V = p_TV[count]
  q_V = jnp.where(count < G, q_GV[jnp.minimum(count, G - 1)], 0)
  rest_V = jnp.maximum(p_V - q_V, 0)
  # The sum is 0 only through rounding: a token is rejected only if q > p.
  rest_V = jnp.where(jnp.sum(rest_V) > 0, rest_V, p_V)
  return count, jax.random.categorical(again, jnp.log(rest_V)).astype(jnp.int32)


def programs(model, draft, ahead: int) -> decoding_programs.Programs:
  """Returns Programs whose variables and caches are pairs (large, draft).

  Each round produces between 1 and G + 1 tokens. Texts must end within the
  max_len of both models.

  Args:
    model: the large model.
    draft: the small model, with the same vocabulary.
    ahead: G, the number of tokens drafted per round.

  Raises:
    UserError: a model's cache cannot drop its last tokens.
  """
  for each in (model, draft):
    if not decoding_programs.grows_with_text(each):
      raise UserError(
        "speculative decoding does not support a model with a recurrent state"
      )
  both = [
    decoding_programs.programs(each, (), ahead + 1) for each in (model, draft)
  ]

  def room(tokens):
    rooms = [each.room(tokens) for each in both]
    return None if None in rooms else min(rooms)

  def begin(variables, fed, room):
    if room is None:
      raise UserError("speculative decoding cannot exceed a model's max_len")
    pairs = zip(both, variables, strict=True)
    return tuple(each.begin(own, fed, room) for each, own in pairs)

  def grow(caches, rows, room):
    pairs = zip(both, caches, strict=True)
    return tuple(each.grow(cache, rows, room) for each, cache in pairs)

  advance = jax.jit(_round(model, draft, ahead), donate_argnums=1)
  return decoding_programs.Programs(
    room, begin, grow, advance, lambda left: ahead + 1
  )


def _round(model, draft, ahead: int):
  """Returns the function that drafts G tokens and verifies them."""

  def read(model, variables, tokens_BT, cache):
    return model.apply(
      variables.params, variables.model_state, tokens_BT, cache=cache
    )[0]

  def drafted(variables, cache, rows, how, keys_B):
    """Returns (cache, drafted_BG, q_BGV, tokens seen before each [B, T, V])."""

    def body(carry, step):
      cache, token_B, seen_BV = carry
      logits_B1V, cache = read(draft, variables, token_B[:, None], cache)
      q_BV = decoding_programs.distribution(logits_B1V[:, 0], how, seen_BV)
      keys = jax.vmap(jax.random.fold_in, (0, None))(keys_B, step)
      token_B = jax.vmap(jax.random.categorical)(keys, jnp.log(q_BV))
      token_B = token_B.astype(jnp.int32)
      before_BV = seen_BV
      if seen_BV is not None:
        seen_BV = seen_BV.at[jnp.arange(len(token_B)), token_B].set(True)
      return (cache, token_B, seen_BV), (token_B, q_BV, before_BV)

    # The last step's token is discarded: the step only feeds the one before.
    (cache, _, _), outputs = jax.lax.scan(
      body, (cache, rows.token_B, rows.seen_BV), jnp.arange(ahead + 1)
    )
    token_BT, q_BTV, seen_BTV = jax.tree.map(
      lambda leaf: jnp.swapaxes(leaf, 0, 1), outputs
    )
    return cache, token_BT[:, :ahead], q_BTV[:, :ahead], seen_BTV

  def advance(variables, rows, how):
    large, small = rows.cache
    keys_B = decoding_programs.keys(how, rows.place_B)
    small, drafted_BG, q_BGV, seen_BTV = drafted(
      variables[1], small, rows, how, keys_B
    )
    read_BT = jnp.concatenate([rows.token_B[:, None], drafted_BG], axis=1)
    logits_BTV, large = read(model, variables[0], read_BT, large)
    p_BTV = jax.vmap(
      lambda logits_BV, seen_BV: decoding_programs.distribution(
        logits_BV, how, seen_BV
      ),
      in_axes=(1, None if seen_BTV is None else 1),
      out_axes=1,
    )(logits_BTV, seen_BTV)
    keys_B = jax.vmap(jax.random.fold_in, (0, None))(keys_B, ahead + 1)
    kept_B, next_B = jax.vmap(accept)(p_BTV, q_BGV, drafted_BG, keys_B)
    places_BT = jnp.arange(ahead + 1)[None]
    token_BT = jnp.where(
      places_BT < kept_B[:, None],
      jnp.pad(drafted_BG, ((0, 0), (0, 1))),
      next_B[:, None],
    )
    count_B = jnp.where(rows.left_B > 0, kept_B + 1, 0)
    place_B = rows.place_B + count_B
    seen_BV = rows.seen_BV
    if seen_BV is not None:
      each_B1 = jnp.arange(len(next_B))[:, None]
      # Positions beyond a row's count repeat its last token.
      seen_BV = seen_BV.at[each_B1, token_BT].set(True)
    rows = decoding_programs.Rows(
      tuple(cache | {"length": place_B} for cache in (large, small)),
      jnp.where(rows.left_B > 0, next_B, rows.token_B),
      place_B,
      jnp.maximum(rows.left_B - count_B, 0),
      seen_BV,
    )
    return rows, token_BT.T, count_B

  return advance
