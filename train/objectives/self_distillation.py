"""Self-distillation without labels (DINO, Caron et al., 2021).

arXiv:2104.14294, algorithm 1. V counts the student's views of an image, of
which the first U are those that the teacher sees; K counts the prototypes.
"""

import jax
import jax.numpy as jnp


def self_distillation(
  student_VBK: jax.Array,
  teacher_UBK: jax.Array,
  center_K: jax.Array,
  *,
  student_temperature: float = 0.1,
  teacher_temperature: jax.Array | float = 0.04,
) -> jax.Array:
  """The mean cross-entropy of all pairs of different views, float32 [B].

  The teacher's distribution is softmax((x - center) / temperature). No gradient
  reaches the teacher.
  """
  theirs = jax.lax.stop_gradient(teacher_UBK.astype(jnp.float32))
  centered_UBK = theirs - center_K[None, None]
  p_UBK = jax.nn.softmax(centered_UBK / teacher_temperature)
  scaled_VBK = student_VBK.astype(jnp.float32) / student_temperature
  log_q_VBK = jax.nn.log_softmax(scaled_VBK)
  nats_UVB = -jnp.einsum("ubk,vbk->uvb", p_UBK, log_q_VBK)
  U, V = nats_UVB.shape[:2]
  apart_UV1 = 1.0 - jnp.eye(U, V)[:, :, None]
  return (nats_UVB * apart_UV1).sum((0, 1)) / apart_UV1.sum()


def moved_center(
  center_K: jax.Array,
  teacher_UBK: jax.Array,
  mask_B: jax.Array,
  momentum: float = 0.9,
) -> jax.Array:
  """The center moved towards the mean of the teacher's outputs, [K]."""
  theirs = jax.lax.stop_gradient(teacher_UBK.astype(jnp.float32))
  weight_1B1 = mask_B.astype(jnp.float32)[None, :, None]
  count = jnp.maximum(mask_B.sum() * len(theirs), 1.0)
  mean_K = (theirs * weight_1B1).sum((0, 1)) / count
  return momentum * center_K + (1 - momentum) * mean_K


def entropy(
  teacher_UBK: jax.Array, center_K: jax.Array, temperature: jax.Array | float
) -> jax.Array:
  """The entropy of the teacher's distributions in nats, float32 [B].

  It is 0, or log K, where the teacher has collapsed.
  """
  centered_UBK = teacher_UBK.astype(jnp.float32) - center_K[None, None]
  log_p_UBK = jax.nn.log_softmax(centered_UBK / temperature)
  return -(jnp.exp(log_p_UBK) * log_p_UBK).sum(-1).mean(0)
