"""Ring attention over a sequence sharded over devices, which pass keys around.

Ring attention (arXiv:2310.01889) in zigzag order (arXiv:2407.21783, section
3.3.2). The shape legend is in models/layers/basic.py; here T and S are
positions of one block, and J counts the blocks of a device.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from models.layers import partition
from models.layers.partition import on_shards

# The queries of a block, which bound the number of scores in memory.
BLOCK = 512


class Rules(NamedTuple):
  """The mask and the scaling; see models.layers.attention.attention.

  devices: the number of devices of the ring.
  """

  devices: int
  causal: bool
  window: int | None
  soft_cap: float | None


def ring(
  q_BTNH: jax.Array,
  k_BTKH: jax.Array,
  v_BTKH: jax.Array,
  *,
  causal: bool = False,
  window: int | None = None,
  soft_cap: float | None = None,
  segments_BT: jax.Array | None = None,
) -> jax.Array:
  """Self-attention, out_BTNH; see models.layers.attention.attention.

  Each device keeps its queries. Keys, values and their segments visit it one
  device's share after another, while the softmax is accumulated in float32
  (arXiv:2205.14135). The backward pass goes around the ring once more, and the
  gradients of keys and values travel with them. Each of n devices therefore
  sends k and v n - 1 times, and in the backward pass n - 1 times again, with
  their gradients n times. Blocks that do not attend to each other are skipped,
  and by the zigzag order all devices skip equally many of a causal triangle.
  The residuals of the backward pass, apart from its inputs, are named
  "attention" for remat policies.

  Args:
    q_BTNH: queries, T in the order of `partition.zigzag`, like all that follow.
    k_BTKH: keys.
    v_BTKH: values.
    causal: position t attends to the positions s <= t.
    window: position t attends only to the positions t - window < s <= t.
    soft_cap: scores become soft_cap * tanh(scores / soft_cap).
    segments_BT: int32; a position attends only to its own segment.
  """
  H = q_BTNH.shape[-1]
  devices = partition.axis_size("context")
  own = functools.partial(_own, Rules(devices, causal, window, soft_cap))
  return on_shards(
    own,
    (q_BTNH * H**-0.5, k_BTKH, v_BTKH, segments_BT),
    ("BTNH", "BTKH", "BTKH", "BT"),
    "BTNH",
  )


def _own(rules, q_BTNH, k_BTKH, v_BTKH, segments_BT):
  """The computation of one device, on its share of the positions."""
  (B, T, N, H), K = q_BTNH.shape, k_BTKH.shape[2]
  chunk = T // 2
  block = chunk if chunk % BLOCK else BLOCK
  queries, keys = (
    jax.tree.map(lambda x, size=size: _blocks(x, size), xs)
    for xs, size in (
      ((q_BTNH.reshape(B, T, K, N // K, H), segments_BT), block),
      ((k_BTKH, v_BTKH, segments_BT), chunk),
    )
  )
  out_JBKGTH = _attend(rules, queries, keys)
  return out_JBKGTH.transpose(1, 0, 4, 2, 3, 5).reshape(B, T, N, H)


def _blocks(x, size):
  """[B, T, ...] -> [J, B, size, ...]."""
  return x.reshape(x.shape[0], -1, size, *x.shape[2:]).swapaxes(0, 1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(rules, queries, keys):
  """Returns out_JBKGTH of (q_JBTKGH, segments_JBT) and (k, v, segments)."""
  return _forward(rules, queries, keys)[0]


def _forward(rules, queries, keys):
  q_JBTKGH = queries[0]
  J, B, T, K, G, H = q_JBTKGH.shape
  lowest = jnp.finfo(jnp.float32).min

  def tile(query, key, scores_BKGTS, slope, sums, _):
    del query, slope
    out_BKGTH, top_BKGT, total_BKGT = sums
    new_top_BKGT = jnp.maximum(top_BKGT, scores_BKGTS.max(-1))
    weights_BKGTS = jnp.exp(scores_BKGTS - new_top_BKGT[..., None])
    # Sums accumulated from masked keys vanish here, since each row eventually
    # attends to itself.
    keep_BKGT = jnp.exp(top_BKGT - new_top_BKGT)
    out_BKGTH = out_BKGTH * keep_BKGT[..., None] + _product(
      "BKGTS,BSKH->BKGTH", weights_BKGTS, key[1]
    )
    total_BKGT = total_BKGT * keep_BKGT + weights_BKGTS.sum(-1)
    return (out_BKGTH, new_top_BKGT, total_BKGT), ()

  sums = (
    jnp.zeros((J, B, K, G, T, H), jnp.float32),
    jnp.full((J, B, K, G, T), lowest),
    jnp.zeros((J, B, K, G, T), jnp.float32),
  )
  (out, top, total), _ = _around(rules, tile, queries, keys, sums, ())
  out = (out / total[..., None]).astype(q_JBTKGH.dtype)
  out = checkpoint_name(out, "attention")
  log_total = checkpoint_name(top + jnp.log(total), "attention")
  return out, (queries, keys, out, log_total)


def _backward(rules, residuals, gradient_JBKGTH):
  (q_JBTKGH, segments), keys, out, log_total = residuals

  def tile(query, key, scores_BKGTS, slope, dq_BTKGH, dkv):
    q_BTKGH, _, g_BKGTH, log_total_BKGT, mean_BKGT = query
    (k_BSKH, v_BSKH, _), (dk_BSKH, dv_BSKH) = key, dkv
    weights_BKGTS = jnp.exp(scores_BKGTS - log_total_BKGT[..., None])
    g_BKGTS = _product("BKGTH,BSKH->BKGTS", g_BKGTH, v_BSKH)
    g_BKGTS = weights_BKGTS * (g_BKGTS - mean_BKGT[..., None]) * slope
    dq_BTKGH += _product("BKGTS,BSKH->BTKGH", g_BKGTS, k_BSKH)
    dk_BSKH += _product("BKGTS,BTKGH->BSKH", g_BKGTS, q_BTKGH)
    dv_BSKH += _product("BKGTS,BKGTH->BSKH", weights_BKGTS, g_BKGTH)
    return dq_BTKGH, (dk_BSKH, dv_BSKH)

  # The mean of the weights' gradients over keys, weighted by the weights.
  mean_JBKGT = (gradient_JBKGTH * out).astype(jnp.float32).sum(-1)
  queries = (q_JBTKGH, segments, gradient_JBKGTH, log_total, mean_JBKGT)
  dq, dkv = jax.tree.map(
    lambda x: jnp.zeros(x.shape, jnp.float32), (q_JBTKGH, keys[:2])
  )
  dq, (dk, dv) = _around(rules, tile, queries, keys, dq, dkv)
  dq, dk, dv = (
    d.astype(x.dtype)
    for d, x in zip((dq, dk, dv), (q_JBTKGH, *keys[:2]), strict=True)
  )
  return (dq, None), (dk, dv, None)


_attend.defvjp(_forward, _backward)


def _around(rules, tile, queries, keys, per_query, per_key):
  """Returns (per_query, per_key) after the keys of all devices have passed.

  Args:
    rules: the mask and the scaling.
    tile: (query, key, scores_BKGTS, slope, per_query, per_key) -> (per_query,
      per_key), for one block of each, with the scores before the softmax.
    queries: tuple of arrays [J, …]: q_JBTKGH, segments_JBT or None, others.
    keys: tuple of arrays [J, …]: k_JBSKH, v_JBSKH, segments_JBS or None; they
      travel.
    per_query: accumulated for the queries; leaves [J, …].
    per_key: accumulated for the keys, and travels with them.
  """
  # Made to depend on the inputs: otherwise a scan over layers would compute the
  # masks of all blocks ahead of its loop, and hold them at once.
  own, queries, keys = jax.lax.optimization_barrier(
    (jax.lax.axis_index("context"), queries, keys)
  )
  pairs = [(i, (i + 1) % rules.devices) for i in range(rules.devices)]
  hand_on = functools.partial(jax.lax.ppermute, axis_name="context", perm=pairs)

  def meet(keys, device, per_query, per_key):
    starts = (_starts(rules, own, queries), _starts(rules, device, keys))
    return _meet(rules, tile, queries, keys, starts, per_query, per_key)

  def step(carry, _):
    keys, device, per_query, per_key = carry
    # Sent before the computation, so that the two overlap.
    following = hand_on(keys)
    per_query, per_key = meet(keys, device, per_query, per_key)
    device = (device - 1) % rules.devices
    return (following, device, per_query, hand_on(per_key)), None

  carry = (keys, own, per_query, per_key)
  carry, _ = jax.lax.scan(step, carry, length=rules.devices - 1)
  per_query, per_key = meet(*carry)
  return per_query, hand_on(per_key)


def _starts(rules, device, blocks):
  """Returns the first position of each block of a device, int32 [J]."""
  J, _, size = blocks[0].shape[:3]
  chunks = jnp.stack([device, 2 * rules.devices - 1 - device])[:, None]
  within = jnp.arange(J // 2, dtype=jnp.int32)[None]
  return ((chunks * (J // 2) + within) * size).reshape(J)


def _meet(rules, tile, queries, keys, starts, per_query, per_key):
  """Returns (per_query, per_key) after all pairs of these blocks."""
  T, S = queries[0].shape[2], keys[0].shape[2]

  def with_keys(per_query, keys):
    key, s, per_key = keys

    def with_queries(per_key, queries):
      query, t, per_query = queries
      meeting = jnp.bool_(True)
      if rules.causal:
        meeting &= s < t + T
      if rules.window is not None:
        meeting &= s + S > t - rules.window + 1

      def work():
        scores_BKGTS, slope = _scores(rules, query, key, t, s)
        return tile(query, key, scores_BKGTS, slope, per_query, per_key)

      per_query, per_key = jax.lax.cond(
        meeting, work, lambda: (per_query, per_key)
      )
      return per_key, per_query

    per_key, per_query = jax.lax.scan(
      with_queries, per_key, (queries, starts[0], per_query)
    )
    return per_query, per_key

  return jax.lax.scan(with_keys, per_query, (keys, starts[1], per_key))


def _scores(rules, query, key, t, s):
  """Returns (scores_BKGTS, their slope by the soft cap) of two blocks.

  The blocks begin at t and s. Masked scores are so low that softmax makes them
  0.
  """
  q_BTKGH, segments_BT = query[:2]
  k_BSKH, _, segments_BS = key
  scores_BKGTS, slope = _product("BTKGH,BSKH->BKGTS", q_BTKGH, k_BSKH), 1.0
  if rules.soft_cap is not None:
    bent_BKGTS = jnp.tanh(scores_BKGTS / rules.soft_cap)
    scores_BKGTS, slope = rules.soft_cap * bent_BKGTS, 1 - bent_BKGTS**2
  T, S = scores_BKGTS.shape[-2:]
  t_T1 = t + jnp.arange(T, dtype=jnp.int32)[:, None]
  s_1S = s + jnp.arange(S, dtype=jnp.int32)[None]
  seen_BTS = jnp.ones((1, T, S), bool)
  if rules.causal:
    seen_BTS &= (t_T1 >= s_1S)[None]
  if rules.window is not None:
    seen_BTS &= (t_T1 - s_1S < rules.window)[None]
  if segments_BT is not None:
    seen_BTS = seen_BTS & (segments_BT[:, :, None] == segments_BS[:, None])
  lowest = jnp.finfo(scores_BKGTS.dtype).min
  return jnp.where(seen_BTS[:, None, None], scores_BKGTS, lowest), slope


def _product(axes, x, y):
  """The einsum, with factors in y's dtype, accumulated in float32."""
  return jnp.einsum(
    axes, x.astype(y.dtype), y, preferred_element_type=jnp.float32
  )
