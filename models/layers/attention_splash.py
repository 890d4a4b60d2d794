"""Attention on a TPU: the splash kernel that ships with JAX.

The shape legend is in models/layers/basic.py.
"""

import functools

import jax

from models.layers.partition import on_shards

# Sides of the tiles of scores, the first that divides the sequence. Larger
# tiles read keys less often; at 2,048 the backward kernel outgrows VMEM.
BLOCKS = (1024, 512, 256, 128)


def fits(T: int, S: int) -> bool:
  """Returns whether the kernel supports T queries and S keys, in full tiles."""
  return T % BLOCKS[-1] == 0 and S % BLOCKS[-1] == 0


def splash(
  q_BTNH: jax.Array,
  k_BSKH: jax.Array,
  v_BSKH: jax.Array,
  *,
  causal: bool = False,
  window: int | None = None,
  soft_cap: float | None = None,
  segments_BT: jax.Array | None = None,
  interpret: bool = False,
) -> jax.Array:
  """Scaled dot-product attention, out_BTNH, as attention.attention.

  Scores are computed in tiles in fast memory, and fully masked tiles are
  skipped: flash attention (arXiv:2205.14135), sparse. Compilers cannot
  partition a kernel, so on a mesh each device runs it on its own rows of the
  batch and heads. The residuals of the backward pass, apart from its inputs
  (the outputs and the sums of the softmax) are named "attention" for remat
  policies.

  Args:
    q_BTNH: queries; `fits` must be True for T and S.
    k_BSKH: keys.
    v_BSKH: values.
    causal: position t attends to the positions s <= t.
    window: position t attends only to the positions t - window < s <= t.
    soft_cap: scores become soft_cap * tanh(scores / soft_cap).
    segments_BT: int32, T = S; a position attends only to its own segment.
    interpret: emulate the kernel, slowly, on any device.
  """
  own = functools.partial(
    _own_rows,
    causal=causal,
    window=window,
    soft_cap=soft_cap,
    interpret=interpret,
  )
  return on_shards(
    own,
    (q_BTNH, k_BSKH, v_BSKH, segments_BT),
    ("B.NH", "B.KH", "B.KH", "B."),
    "B.NH",
  )


def _own_rows(
  q_BTNH, k_BSKH, v_BSKH, segments_BT, *, causal, window, soft_cap, interpret
):
  """The computation of one device."""
  # Imported here: it is slow to import, and most programs do not need it.
  from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_kernel as kernels,
  )
  from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_mask as masks,
  )

  (T, N, H), S = q_BTNH.shape[1:], k_BSKH.shape[1]
  block_q, block_kv = (
    next(block for block in BLOCKS if length % block == 0) for length in (T, S)
  )
  if window is not None:
    mask = masks.LocalMask((T, S), (window - 1, 0), 0)
  elif causal:
    mask = masks.CausalMask((T, S))
  else:
    mask = masks.FullMask((T, S))
  kernel = kernels.make_splash_mha(
    masks.MultiHeadMask([mask] * N),
    block_sizes=kernels.BlockSizes(
      block_q=block_q,
      block_kv=block_kv,
      block_q_dkv=block_q,
      block_kv_dkv=block_kv,
      block_q_dq=block_q,
      block_kv_dq=block_kv,
    ),
    head_shards=1,
    q_seq_shards=1,
    attn_logits_soft_cap=soft_cap,
    residual_checkpoint_name="attention",
    interpret=interpret,
  )
  heads_first = (x.swapaxes(1, 2) for x in (q_BTNH * H**-0.5, k_BSKH, v_BSKH))
  segments = segments_BT is not None and kernels.SegmentIds(
    segments_BT, segments_BT
  )
  out_BNTH = jax.vmap(kernel)(*heads_first, segments or None)
  return out_BNTH.swapaxes(1, 2).astype(q_BTNH.dtype)
