"""The cheapest matching of objects with predictions, inside jit."""

import jax
import jax.numpy as jnp

from train.objectives import boxes as boxes_lib


def cost(found, truth, weights: tuple[float, float]) -> jax.Array:
  """DETR's cost of each object and query, [B, N, Q] (arXiv:2005.12872, 3.1).

  Args:
    found: (logits [B, Q, C + 1], boxes [B, Q, 4]).
    truth: (classes [B, N], boxes [B, N, 4]); boxes are (x, y of the centre,
      width, height).
    weights: of the sum of the four coordinates' distances, and of the GIoU,
      beside the probability of the class.
  """
  (logits_BQC, boxes_BQ4), (classes_BN, truth_BN4) = found, truth
  p_BCQ = jax.nn.softmax(logits_BQC).swapaxes(1, 2)
  p_BNQ = jnp.take_along_axis(p_BCQ, classes_BN[..., None], axis=1)
  apart_BNQ = jnp.abs(truth_BN4[:, :, None] - boxes_BQ4[:, None]).sum(-1)
  giou_BNQ = boxes_lib.pairwise(
    *map(boxes_lib.from_centres, (truth_BN4, boxes_BQ4)), "giou"
  )
  return weights[0] * apart_BNQ - weights[1] * giou_BNQ - p_BNQ


def matching(cost_BNQ: jax.Array, real_BN: jax.Array) -> jax.Array:
  """The query of each object, int32 [B, N], all different, at the least cost.

  The Hungarian algorithm by shortest augmenting paths (Jonker and Volgenant,
  1987): objects are added one by one, each along the cheapest path through the
  queries taken before. Objects of padding take no query; theirs is 0.

  Args:
    cost_BNQ: float32, finite.
    real_BN: 1 on objects, 0 on padding.

  Raises:
    ValueError: there may be more objects than queries.
  """
  _, N, Q = cost_BNQ.shape
  if N > Q:
    raise ValueError(
      f"{N} objects an image need as many queries, and there are {Q}: set"
      " model.queries, or a smaller pad(…)"
    )
  cost_BNQ = jax.lax.stop_gradient(cost_BNQ).astype(jnp.float32)
  return jax.vmap(_matched)(cost_BNQ, real_BN > 0)


def _matched(cost_NQ, real_N):
  """`matching` for one image.

  Column 0 is virtual: it holds the object that is being added. `holder` has for
  each column the object that takes it, counted from 1, or 0; `high` and `low`
  are the potentials of objects and columns.
  """
  N, Q = cost_NQ.shape
  # A row and a column more, so that numbers from 1 on are places.
  cost = jnp.pad(cost_NQ, ((1, 0), (1, 0)))

  def search(carry):
    column, holder, high, low, least, before, used = carry
    used = used.at[column].set(True)
    row = holder[column]
    reduced = cost[row] - high[row] - low
    closer = ~used & (reduced < least)
    least = jnp.where(closer, reduced, least)
    before = jnp.where(closer, column, before)
    following = jnp.argmin(jnp.where(used, jnp.inf, least))
    step = least[following]
    high = high.at[holder].add(jnp.where(used, step, 0.0))
    low = jnp.where(used, low - step, low)
    least = jnp.where(used, least, least - step)
    return following, holder, high, low, least, before, used

  def turn_back(carry):
    column, holder, before = carry
    previous = before[column]
    return previous, holder.at[column].set(holder[previous]), before

  def add(row, carry):
    holder, high, low = carry
    holder = holder.at[0].set(jnp.where(real_N[row - 1], row, 0))
    start = (
      jnp.int32(0),
      holder,
      high,
      low,
      jnp.full(Q + 1, jnp.inf),
      jnp.zeros(Q + 1, jnp.int32),
      jnp.zeros(Q + 1, bool),
    )

    def unfinished(carry):
      return carry[1][carry[0]] > 0

    column, holder, high, low, _, before, _ = jax.lax.while_loop(
      unfinished, search, start
    )
    _, holder, _ = jax.lax.while_loop(
      lambda carry: carry[0] > 0, turn_back, (column, holder, before)
    )
    return holder.at[0].set(0), high, low

  first = (
    jnp.zeros(Q + 1, jnp.int32),
    jnp.zeros(N + 1, jnp.float32),
    jnp.zeros(Q + 1, jnp.float32),
  )
  holder, _, _ = jax.lax.fori_loop(1, N + 1, add, first)
  query = jnp.zeros(N + 1, jnp.int32).at[holder[1:]].set(jnp.arange(Q))
  return jnp.where(real_N, query[1:], 0)
