"""Attention: one entry for every model and platform, and its module.

The shape legend stands in models/layers.py.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from models import layers


def attention(
  q_BTNH: jax.Array,
  k_BSKH: jax.Array,
  v_BSKH: jax.Array,
  *,
  causal: bool = False,
  mask_BNTS: jax.Array | None = None,
) -> jax.Array:
  """Scaled dot-product attention, out_BTNH in q's dtype (arXiv:1706.03762).

  N is a multiple of K: each key-value head serves N / K query heads (grouped
  queries, arXiv:2305.13245). Softmax is in float32. On a GPU, half precision
  takes cuDNN's fused kernel.

  Args:
    q_BTNH: queries.
    k_BSKH: keys.
    v_BSKH: values.
    causal: position t sees the positions s <= t.
    mask_BNTS: bool, True where a query may look; any axis may be 1.
  """
  B, T, N, H = q_BTNH.shape
  S, K = k_BSKH.shape[1:3]
  half = q_BTNH.dtype in (jnp.bfloat16, jnp.float16)
  if half and jax.default_backend() == "gpu":
    return jax.nn.dot_product_attention(
      q_BTNH,
      k_BSKH,
      v_BSKH,
      mask=mask_BNTS,
      is_causal=causal,
      implementation="cudnn",
    )
  q_BTKGH = (q_BTNH * H**-0.5).reshape(B, T, K, N // K, H)
  scores_BKGTS = jnp.einsum(
    "BTKGH,BSKH->BKGTS", q_BTKGH, k_BSKH, preferred_element_type=jnp.float32
  )
  if causal:
    seen_TS = jnp.tril(jnp.ones((T, S), bool))
    scores_BKGTS = _hide(scores_BKGTS, seen_TS[None, None, None])
  if mask_BNTS is not None:
    if mask_BNTS.shape[1] == 1:
      seen_BKGTS = mask_BNTS[:, :, None]
    else:
      seen_BKGTS = mask_BNTS.reshape(-1, K, N // K, *mask_BNTS.shape[2:])
    scores_BKGTS = _hide(scores_BKGTS, seen_BKGTS)
  weights_BKGTS = jax.nn.softmax(scores_BKGTS, axis=-1).astype(v_BSKH.dtype)
  out_BTKGH = jnp.einsum("BKGTS,BSKH->BTKGH", weights_BKGTS, v_BSKH)
  return out_BTKGH.reshape(B, T, N, H)


def rotary(
  x_BTNH: jax.Array, positions_T: jax.Array, theta: float
) -> jax.Array:
  """Rotates pairs of coordinates by angles linear in the position.

  The pairs are (h, h + H/2), with frequencies theta^(-2h/H), as Llama pairs
  them (arXiv:2104.09864 pairs neighbours: a permutation of the weights).
  """
  half = x_BTNH.shape[-1] // 2
  frequencies_H = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
  angles_TH = positions_T.astype(jnp.float32)[:, None] * frequencies_H[None]
  cos = jnp.cos(angles_TH)[None, :, None]
  sin = jnp.sin(angles_TH)[None, :, None]
  first, second = jnp.split(x_BTNH.astype(jnp.float32), 2, axis=-1)
  rotated = jnp.concatenate(
    [first * cos - second * sin, second * cos + first * sin], axis=-1
  )
  return rotated.astype(x_BTNH.dtype)


class SelfAttention(nnx.Module):
  """Multi-head self-attention with its four projections.

  Args:
    dim: D.
    heads: N.
    kv_heads: K, a divisor of N.
    head_dim: H.
    causal: see `attention`.
    rope_theta: the base of the rotary frequencies; None for no rotation.
    out_init: initializer of the projection into the residual stream.
    rngs: random streams.
    **dense: of every projection; see layers.Dense.
  """

  def __init__(
    self,
    dim: int,
    *,
    heads: int,
    kv_heads: int,
    head_dim: int,
    causal: bool,
    rope_theta: float | None,
    out_init,
    rngs: nnx.Rngs,
    **dense,
  ):
    self.head_dim = head_dim
    self.causal = causal
    self.rope_theta = rope_theta
    self.query = layers.Dense(dim, heads * head_dim, rngs=rngs, **dense)
    self.key = layers.Dense(dim, kv_heads * head_dim, rngs=rngs, **dense)
    self.value = layers.Dense(dim, kv_heads * head_dim, rngs=rngs, **dense)
    self.out = layers.Dense(
      heads * head_dim, dim, rngs=rngs, **dense | {"kernel_init": out_init}
    )

  def __call__(
    self,
    x_BTD: jax.Array,
    cache: dict[str, jax.Array] | None = None,
    length: jax.Array | int = 0,
  ) -> tuple[jax.Array, dict[str, jax.Array] | None]:
    """(out_BTD, the cache with T positions more).

    Args:
      x_BTD: inputs.
      cache: "key" and "value", both [B, S, K, H], filled up to `length`.
      length: int32 scalar, the position of x's first token.
    """
    B, T, _ = x_BTD.shape
    heads = (B, T, -1, self.head_dim)
    q_BTNH = self.query(x_BTD).reshape(heads)
    k_BSKH = self.key(x_BTD).reshape(heads)
    v_BSKH = self.value(x_BTD).reshape(heads)
    positions_T = length + jnp.arange(T)
    if self.rope_theta is not None:
      q_BTNH = rotary(q_BTNH, positions_T, self.rope_theta)
      k_BSKH = rotary(k_BSKH, positions_T, self.rope_theta)
    if cache is None:
      out_BTNH = attention(q_BTNH, k_BSKH, v_BSKH, causal=self.causal)
    else:
      cache = {
        name: jax.lax.dynamic_update_slice_in_dim(
          cache[name], new.astype(cache[name].dtype), length, axis=1
        )
        for name, new in (("key", k_BSKH), ("value", v_BSKH))
      }
      sources_S = jnp.arange(cache["key"].shape[1])
      seen_TS = sources_S[None] <= positions_T[:, None]
      out_BTNH = attention(
        q_BTNH,
        cache["key"].astype(q_BTNH.dtype),
        cache["value"].astype(q_BTNH.dtype),
        mask_BNTS=seen_TS[None, None],
      )
    return self.out(out_BTNH.reshape(B, T, -1)), cache


def _hide(scores: jax.Array, seen: jax.Array) -> jax.Array:
  """Scores with what is not seen set so low that softmax makes it 0."""
  return jnp.where(seen, scores, jnp.finfo(scores.dtype).min)
