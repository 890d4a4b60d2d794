"""Attention on an NVIDIA GPU, in half precision: cuDNN's fused kernel.

The shape legend is in models/layers/basic.py.
"""

import jax
import jax.numpy as jnp

from models.layers import partition


def fits(
  q_BTNH: jax.Array,
  k_BSKH: jax.Array,
  v_BSKH: jax.Array,
  *,
  causal: bool,
  mask_BNTS: jax.Array | None,
  window: int | None,
  soft_cap: float | None,
  segments_BT: jax.Array | None,
) -> bool:
  """Returns whether the kernel and its backward pass support the arguments.

  It has no soft cap and needs heads of at most 128 in steps of 8; a backward
  pass with a mask needs even lengths.
  """
  del v_BSKH, causal, window
  T, S, H = q_BTNH.shape[1], k_BSKH.shape[1], q_BTNH.shape[3]
  masked = mask_BNTS is not None or segments_BT is not None
  # Generation of single tokens, without a backward pass.
  even = S % 2 == 0 and (T % 2 == 0 or T == 1)
  return (
    q_BTNH.dtype in (jnp.bfloat16, jnp.float16)
    and partition.axis_size("context") == 1
    and soft_cap is None
    and (even or not masked)
    and H % 8 == 0
    and H <= 128
  )


def cudnn(
  q_BTNH: jax.Array,
  k_BSKH: jax.Array,
  v_BSKH: jax.Array,
  *,
  causal: bool,
  mask_BNTS: jax.Array | None,
  window: int | None,
  soft_cap: float | None,
  segments_BT: jax.Array | None,
) -> jax.Array:
  """Scaled dot-product attention, out_BTNH, as attention.attention.

  Segments become a mask [B, 1, T, S]. For the arguments see there; `fits` must
  be True for them.
  """
  del soft_cap
  if segments_BT is not None:
    same_B1TS = same_segment(segments_BT)[:, None]
    mask_BNTS = same_B1TS if mask_BNTS is None else mask_BNTS & same_B1TS
  return jax.nn.dot_product_attention(
    q_BTNH,
    k_BSKH,
    v_BSKH,
    mask=mask_BNTS,
    is_causal=causal,
    local_window_size=None if window is None else (window - 1, 0),
    implementation="cudnn",
  )


def same_segment(segments_BT: jax.Array) -> jax.Array:
  """Returns whether two positions share a segment, bool [B, T, T]."""
  return segments_BT[:, :, None] == segments_BT[:, None]
