"""Linear-chain conditional random fields (Lafferty et al., ICML 2001).

Optax and Flax do not provide them.

The score of tags y is start[y_1] + sum_t emission_t[y_t]
+ sum_t transition[y_{t-1}, y_t] + end[y_n]. The chain consists of the positions
whose mask is 1. All others are skipped: padding, and parts of words that are
not tagged.

Shapes: B batch, T time, C tags. transitions_CC[i, j] scores a transition from
tag i to tag j.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Chain(NamedTuple):
  """The parameters: start_C, transitions_CC, end_C."""

  start_C: jax.Array
  transitions_CC: jax.Array
  end_C: jax.Array


def log_likelihood(
  chain: Chain, logits_BTC: jax.Array, tags_BT: jax.Array, mask_BT: jax.Array
) -> jax.Array:
  """Returns log p(tags | logits), float32 [B]; 0 where a mask is all 0."""
  scores_TBC, mask_TB = _by_time(logits_BTC, mask_BT)
  tags_TB = jnp.swapaxes(tags_BT, 0, 1)
  onehot_TBC = jax.nn.one_hot(tags_TB, scores_TBC.shape[-1])

  def body(carry, inputs):
    alpha_BC, score_B, last_BC, begun_B = carry
    scores_BC, onehot_BC, real_B = inputs
    moved_BC = jax.nn.logsumexp(
      alpha_BC[:, :, None] + chain.transitions_CC[None], axis=1
    )
    first_BC = jnp.broadcast_to(chain.start_C[None], moved_BC.shape)
    alpha_new_BC = jnp.where(begun_B[:, None], moved_BC, first_BC) + scores_BC
    step_BC = last_BC @ chain.transitions_CC
    step_BC = jnp.where(begun_B[:, None], step_BC, first_BC) + scores_BC
    gained_B = jnp.sum(step_BC * onehot_BC, axis=-1)
    real_B1 = real_B[:, None]
    carry = (
      jnp.where(real_B1, alpha_new_BC, alpha_BC),
      score_B + jnp.where(real_B, gained_B, 0.0),
      jnp.where(real_B1, onehot_BC, last_BC),
      begun_B | real_B,
    )
    return carry, None

  zeros_BC = jnp.zeros(scores_TBC.shape[1:], jnp.float32)
  begin = (
    zeros_BC,
    zeros_BC[:, 0],
    zeros_BC,
    jnp.zeros(zeros_BC.shape[:1], bool),
  )
  (alpha_BC, score_B, last_BC, begun_B), _ = jax.lax.scan(
    body, begin, (scores_TBC, onehot_TBC, mask_TB)
  )
  log_z_B = jax.nn.logsumexp(alpha_BC + chain.end_C[None], axis=-1)
  return jnp.where(begun_B, score_B + last_BC @ chain.end_C - log_z_B, 0.0)


def viterbi(
  chain: Chain, logits_BTC: jax.Array, mask_BT: jax.Array
) -> jax.Array:
  """Returns the most likely tags, int32 [B, T]; undefined where mask is 0."""
  scores_TBC, mask_TB = _by_time(logits_BTC, mask_BT)
  B, C = scores_TBC.shape[1:]
  same_BC = jnp.broadcast_to(jnp.arange(C)[None], (B, C))

  def forward(carry, inputs):
    best_BC, begun_B = carry
    scores_BC, real_B = inputs
    paths_BCC = best_BC[:, :, None] + chain.transitions_CC[None]
    on_B1 = (real_B & begun_B)[:, None]
    moved_BC = jnp.where(
      begun_B[:, None], jnp.max(paths_BCC, axis=1), chain.start_C[None]
    )
    best_BC = jnp.where(real_B[:, None], moved_BC + scores_BC, best_BC)
    # At skipped positions the path does not change.
    back_BC = jnp.where(on_B1, jnp.argmax(paths_BCC, axis=1), same_BC)
    return (best_BC, begun_B | real_B), back_BC

  begin = (jnp.zeros((B, C), jnp.float32), jnp.zeros((B,), bool))
  (best_BC, _), back_TBC = jax.lax.scan(forward, begin, (scores_TBC, mask_TB))
  last_B = jnp.argmax(best_BC + chain.end_C[None], axis=-1)

  def backward(tag_B, back_BC):
    before_B = jnp.take_along_axis(back_BC, tag_B[:, None], axis=1)[:, 0]
    return before_B, tag_B

  _, tags_TB = jax.lax.scan(backward, last_B, back_TBC, reverse=True)
  return jnp.swapaxes(tags_TB, 0, 1).astype(jnp.int32)


def _by_time(logits_BTC, mask_BT):
  scores_TBC = jnp.swapaxes(logits_BTC, 0, 1).astype(jnp.float32)
  return scores_TBC, jnp.swapaxes(mask_BT, 0, 1) > 0
