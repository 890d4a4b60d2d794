"""Attention: one function for every model and platform, and its module.

The shape legend is in models/layers/basic.py.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from models.layers import attention_cudnn, attention_splash, basic, partition
from models.layers.attention_ring import ring


def attention(
  q_BTNH: jax.Array,
  k_BSKH: jax.Array,
  v_BSKH: jax.Array,
  *,
  causal: bool = False,
  mask_BNTS: jax.Array | None = None,
  window: int | None = None,
  soft_cap: float | None = None,
  segments_BT: jax.Array | None = None,
  prefix_B: jax.Array | None = None,
  bias_BNTS: jax.Array | None = None,
) -> jax.Array:
  """Scaled dot-product attention, out_BTNH in q's dtype (arXiv:1706.03762).

  N is a multiple of K: each key-value head serves N / K query heads (grouped
  queries, arXiv:2305.13245). Softmax is in float32. If the surrounding mesh
  shards time over "context", self-attention is ring attention
  (models/layers/attention_ring.py), with tokens in zigzag order
  (`partition.zigzag`). Otherwise the fused kernel of the platform is used if it
  supports the arguments: splash on a TPU, and cuDNN's on a GPU in half
  precision.

  Args:
    q_BTNH: queries.
    k_BSKH: keys.
    v_BSKH: values.
    causal: position t attends to the positions s <= t.
    mask_BNTS: bool, True where a query may attend; any axis may be 1.
    window: position t attends only to the positions t - window < s <= t, so it
      implies `causal` (sliding windows, arXiv:2004.05150).
    soft_cap: scores become soft_cap * tanh(scores / soft_cap), before any mask
      (Gemma 2, arXiv:2408.00118).
    segments_BT: int32, for T = S: a position attends only to its own segment.
      Padding, 0, attends to padding.
    prefix_B: int32; every position also attends to the positions s < prefix_B,
      regardless of `causal` and `window`. Not supported by the fused kernels or
      the ring.
    bias_BNTS: float, added to the scores before any mask; B may be 1. Not
      supported by the fused kernels.

  Raises:
    ValueError: window < 1, soft_cap <= 0, or segments where T is not S.
  """
  T, S = q_BTNH.shape[1], k_BSKH.shape[1]
  if window is not None and window < 1:
    raise ValueError(f"window = {window} is not positive")
  if soft_cap is not None and soft_cap <= 0:
    raise ValueError(f"soft_cap = {soft_cap} is not positive")
  if segments_BT is not None and T != S:
    raise ValueError(
      f"segments need T = S, as in self-attention, not {T} and {S}"
    )
  qkv = _heads_to_cut(q_BTNH, k_BSKH, v_BSKH)
  options = {
    "causal": causal or window is not None,
    "window": window,
    "soft_cap": soft_cap,
    "segments_BT": segments_BT,
  }
  if bias_BNTS is not None or prefix_B is not None:
    also = {"bias_BNTS": bias_BNTS, "prefix_B": prefix_B}
    return _xla(*qkv, **options, mask_BNTS=mask_BNTS, **also)
  devices, platform = partition.axis_size("context"), partition.platform()
  if mask_BNTS is None and devices > 1 and T == S and T % (2 * devices) == 0:
    return ring(*qkv, **options)
  if mask_BNTS is None and platform == "tpu" and attention_splash.fits(T, S):
    return attention_splash.splash(*qkv, **options)
  options["mask_BNTS"] = mask_BNTS
  if platform == "gpu" and attention_cudnn.fits(*qkv, **options):
    return attention_cudnn.cudnn(*qkv, **options)
  return _xla(*qkv, **options)


def _heads_to_cut(q_BTNH, k_BSKH, v_BSKH):
  """Returns (q, k, v), with keys repeated until a tensor axis divides them."""
  N, K = q_BTNH.shape[2], k_BSKH.shape[2]
  tensor = partition.axis_size("tensor")
  if N % tensor or K % tensor == 0:
    return q_BTNH, k_BSKH, v_BSKH
  times = math.lcm(K, tensor) // K
  return q_BTNH, *(jnp.repeat(x, times, axis=2) for x in (k_BSKH, v_BSKH))


def _xla(
  q_BTNH,
  k_BSKH,
  v_BSKH,
  *,
  causal,
  mask_BNTS,
  window,
  soft_cap,
  segments_BT,
  prefix_B=None,
  bias_BNTS=None,
):
  """Computes `attention` by its formula, all scores at once."""
  B, T, N, H = q_BTNH.shape
  S, K = k_BSKH.shape[1:3]
  q_BTKGH = (q_BTNH * H**-0.5).reshape(B, T, K, N // K, H)
  scores_BKGTS = jnp.einsum(
    "BTKGH,BSKH->BKGTS", q_BTKGH, k_BSKH, preferred_element_type=jnp.float32
  )
  if soft_cap is not None:
    scores_BKGTS = soft_cap * jnp.tanh(scores_BKGTS / soft_cap)
  if bias_BNTS is not None:
    bias_BKGTS = bias_BNTS.reshape(-1, K, N // K, *bias_BNTS.shape[2:])
    scores_BKGTS += bias_BKGTS.astype(scores_BKGTS.dtype)
  if causal:
    places = _laid_out if T == S else jnp.arange
    t_T1, s_1S = places(T)[:, None], places(S)[None]
    seen_TS = t_T1 >= s_1S
    if window is not None:
      seen_TS &= t_T1 - s_1S < window
    seen_BTS = _with_prefix(seen_TS[None], s_1S[None], prefix_B)
    scores_BKGTS = _hide(scores_BKGTS, seen_BTS[:, None, None])
  if segments_BT is not None:
    seen_BTS = attention_cudnn.same_segment(segments_BT)
    scores_BKGTS = _hide(scores_BKGTS, seen_BTS[:, None, None])
  if mask_BNTS is not None:
    if mask_BNTS.shape[1] == 1:
      seen_BKGTS = mask_BNTS[:, :, None]
    else:
      seen_BKGTS = mask_BNTS.reshape(-1, K, N // K, *mask_BNTS.shape[2:])
    scores_BKGTS = _hide(scores_BKGTS, seen_BKGTS)
  weights_BKGTS = jax.nn.softmax(scores_BKGTS, axis=-1).astype(v_BSKH.dtype)
  out_BTKGH = jnp.einsum("BKGTS,BSKH->BTKGH", weights_BKGTS, v_BSKH)
  return out_BTKGH.reshape(B, T, N, H)


class RopeScaling(NamedTuple):
  """The scaling of rotary frequencies for texts longer than trained on.

  "linear" divides every frequency by `factor` (arXiv:2306.15595). "llama3"
  (Llama 3.1) divides those with wavelengths above `original` /
  `low_freq_factor` positions, keeps those below `original` /
  `high_freq_factor`, and interpolates between; `original` is
  original_max_position_embeddings. The names are those of Hugging Face's
  config.json.
  """

  rope_type: str
  factor: float
  low_freq_factor: float | None = None
  high_freq_factor: float | None = None
  original_max_position_embeddings: int | None = None


def rope_scaling(settings: Mapping | None) -> RopeScaling | None:
  """Returns the RopeScaling of a dict; None for None and for "default".

  Raises:
    ValueError: the type is unknown; a key is missing, unknown or invalid.
  """
  if settings is None:
    return None
  if not isinstance(settings, Mapping):
    raise ValueError(f"rope_scaling = {settings!r} is not a dict")
  types = ("default", "linear", "llama3")
  kind = basic.choose("rope_type", settings.get("rope_type"), types)
  if kind == "default":
    return None
  fields = RopeScaling._fields[: 2 if kind == "linear" else None]
  for name in sorted({*settings, *fields}):
    if name not in fields or name not in settings:
      what = "unknown" if name in settings else "missing"
      raise ValueError(f"rope_scaling.{name}: {what}")
  found = RopeScaling(**settings)
  for name in fields[1:]:
    value = getattr(found, name)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 < value < math.inf:
      raise ValueError(f"rope_scaling.{name} = {value!r} is not above 0")
  if found.low_freq_factor and found.low_freq_factor >= found.high_freq_factor:
    raise ValueError(
      "rope_scaling: low_freq_factor must be below high_freq_factor"
    )
  return found


def rotary_frequencies(
  half: int, theta: float, scaling: RopeScaling | None = None
) -> jax.Array:
  """Returns radians per position of each of `half` pairs, float32 [H / 2]."""
  frequencies_H = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
  if scaling is None:
    return frequencies_H
  slow_H = frequencies_H / scaling.factor
  if scaling.rope_type == "linear":
    return slow_H
  # The number of wavelengths within the context of the model's training.
  low, high = scaling.low_freq_factor, scaling.high_freq_factor
  waves_H = scaling.original_max_position_embeddings * frequencies_H
  kept_H = jnp.clip((waves_H / (2 * math.pi) - low) / (high - low), 0, 1)
  return (1 - kept_H) * slow_H + kept_H * frequencies_H


def rotary(
  x_BTNH: jax.Array,
  positions: jax.Array,
  theta: float,
  scaling: RopeScaling | None = None,
) -> jax.Array:
  """Rotates pairs of coordinates by angles linear in the position.

  The pairs are (h, h + H/2), with frequencies theta^(-2h/H), as in Llama
  (arXiv:2104.09864 pairs neighbours: a permutation of the weights), then
  scaled. Positions are [T] or [B, T].
  """
  half = x_BTNH.shape[-1] // 2
  frequencies_H = rotary_frequencies(half, theta, scaling)
  positions_BT = positions if positions.ndim == 2 else positions[None]
  angles_BTH = (
    positions_BT.astype(jnp.float32)[:, :, None] * frequencies_H[None, None]
  )
  cos = jnp.cos(angles_BTH)[:, :, None]
  sin = jnp.sin(angles_BTH)[:, :, None]
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
    window: see `attention`.
    soft_cap: see `attention`.
    rope_theta: the base of the rotary frequencies; None for no rotation.
    rope_scaling: the scaling of the frequencies, or None.
    out_init: initializer of the projection into the residual stream.
    rngs: random streams.
    **dense: arguments of every projection; see layers.Dense.
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
    rope_scaling: RopeScaling | None = None,
    window: int | None = None,
    soft_cap: float | None = None,
    **dense,
  ):
    self.head_dim = head_dim
    self.causal, self.window, self.soft_cap = causal, window, soft_cap
    self.rope_theta, self.rope_scaling = rope_theta, rope_scaling
    N, K, dense = heads * head_dim, kv_heads * head_dim, {"rngs": rngs} | dense
    self.query = basic.Dense(dim, N, axes="DN", **dense)
    self.key = basic.Dense(dim, K, axes="DK", **dense)
    self.value = basic.Dense(dim, K, axes="DK", **dense)
    self.out = basic.Dense(
      N, dim, axes="ND", **dense | {"kernel_init": out_init}
    )

  def __call__(
    self,
    x_BTD: jax.Array,
    cache: dict[str, jax.Array] | None = None,
    length: jax.Array | int = 0,
    *,
    segments_BT: jax.Array | None = None,
    positions_BT: jax.Array | None = None,
    prefix_B: jax.Array | None = None,
  ) -> tuple[jax.Array, dict[str, jax.Array] | None]:
    """Returns (out_BTD, the cache extended by T positions).

    Args:
      x_BTD: inputs.
      cache: "key" and "value", both [B, K, S, H], filled up to `length`.
      length: int32, the position of x's first token: a scalar, or [B].
      segments_BT: of packed sequences, see `attention`; not with a cache.
      positions_BT: int32, for the rotary angles; those of the row if None.
      prefix_B: see `attention`; with a cache, x holds all of the prefix or
        comes after it.

    Raises:
      ValueError: segments are given with a cache.
    """
    if cache is not None and segments_BT is not None:
      raise ValueError(
        "segments of packed sequences cannot be used with a cache"
      )
    B, T, _ = x_BTD.shape
    x_BTD = partition.place(x_BTD, "BTD")
    q_BTNH, k_BSKH, v_BSKH = (
      partition.place(project(x_BTD).reshape(B, T, -1, self.head_dim), letters)
      for project, letters in (
        (self.query, "BTNH"),
        (self.key, "BTKH"),
        (self.value, "BTKH"),
      )
    )
    positions = positions_BT
    if self.rope_theta is not None:
      if positions is None:
        positions = length + (_laid_out if cache is None else jnp.arange)(T)
      rope = (positions, self.rope_theta, self.rope_scaling)
      q_BTNH, k_BSKH = rotary(q_BTNH, *rope), rotary(k_BSKH, *rope)
    options = {"soft_cap": self.soft_cap}
    if cache is None:
      options |= {
        "window": self.window,
        "segments_BT": segments_BT,
        "prefix_B": prefix_B,
      }
      out_BTNH = attention(
        q_BTNH, k_BSKH, v_BSKH, causal=self.causal, **options
      )
    else:
      names = ("key", "value")
      cache = {
        name: _appended(cache[name], new, length)
        for name, new in zip(names, (k_BSKH, v_BSKH), strict=True)
      }
      t_BT1 = positions_after(length, T)[:, :, None]
      s_11S = jnp.arange(cache["key"].shape[2])[None, None]
      seen_BTS = s_11S <= t_BT1
      if self.window is not None:
        seen_BTS &= t_BT1 - s_11S < self.window
      out_BTNH = attention(
        q_BTNH,
        # XLA swaps the axes back; a cache in the other order would be copied.
        *(cache[name].swapaxes(1, 2).astype(q_BTNH.dtype) for name in names),
        mask_BNTS=_with_prefix(seen_BTS, s_11S, prefix_B)[:, None],
        **options,
      )
    out_BTNH = partition.place(out_BTNH, "BTNH")
    return self.out(out_BTNH.reshape(B, T, -1)), cache


def _with_prefix(seen_BTS, s_11S, prefix_B) -> jax.Array:
  """Returns the mask with the prefix visible to every position, B or 1 rows."""
  if prefix_B is None:
    return seen_BTS
  return seen_BTS | (s_11S < prefix_B[:, None, None])


def positions_after(length: jax.Array | int, T: int) -> jax.Array:
  """Returns the T positions after `length`, a scalar or [B]: [1 or B, T]."""
  return jnp.reshape(length, (-1, 1)) + jnp.arange(T)[None]


def _appended(
  cache_BKSH: jax.Array, new_BTKH: jax.Array, length: jax.Array | int
) -> jax.Array:
  """Returns the cache with `new` written at `length`, per row if needed."""
  new_BTKH = new_BTKH.astype(cache_BKSH.dtype)
  if jnp.ndim(length) == 0:
    return jax.lax.dynamic_update_slice_in_dim(
      cache_BKSH, new_BTKH.swapaxes(1, 2), length, axis=2
    )
  B, T = new_BTKH.shape[:2]
  places_BT = positions_after(length, T)
  return cache_BKSH.at[jnp.arange(B)[:, None], :, places_BT].set(new_BTKH)


def _laid_out(length: int) -> jax.Array:
  """Returns the positions of a row's tokens, in the order of their storage."""
  devices = partition.axis_size("context")
  if devices == 1:
    return jnp.arange(length)
  return jnp.asarray(partition.zigzag(length, devices))


def _hide(scores: jax.Array, seen: jax.Array) -> jax.Array:
  """Sets masked scores so low that their softmax is 0."""
  return jnp.where(seen, scores, jnp.finfo(scores.dtype).min)
