"""Which prediction learns which object, with static shapes."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from train.objectives import boxes as boxes_lib
from train.objectives import losses


class Assigned(NamedTuple):
  """What each of A predictions has to learn.

  owner: int32 [B, A], the object; 0 where there is none.
  share: float32 [B, A], the score to learn, 0 where there is no object.
  """

  owner: jax.Array
  share: jax.Array


def task_aligned(
  found, truth_BN4, classes_BN, real_BN, *, top: int, alpha: float, beta: float
) -> Assigned:
  """Task-aligned assignment (Feng et al., 2021, arXiv:2108.07755).

  An object is learned by the `top` predictions of the largest alignment,
  score^alpha * IoU^beta, among those whose point is within its box, or by the
  prediction of the nearest point if there is none. A prediction learns only the
  object with which its IoU is largest. The score to learn is the alignment,
  scaled so that the largest one of an object is its largest IoU.

  Args:
    found: "logits" [B, A, C], "boxes" [B, A, 4], "points" [A, 2].
    truth_BN4: the boxes of the objects.
    classes_BN: integers.
    real_BN: 1 on objects, 0 on padding.
    top: the number of predictions.
    alpha: exponent of the score.
    beta: exponent of the IoU.
  """
  points_A2 = found["points"]
  score_BCA = jax.nn.sigmoid(found["logits"]).swapaxes(1, 2)
  score_BNA = jnp.take_along_axis(score_BCA, classes_BN[..., None], axis=1)
  iou_BNA = boxes_lib.pairwise(truth_BN4, found["boxes"])
  allowed_BNA = _within(points_A2, truth_BN4) & (real_BN > 0)[..., None]
  aligned_BNA = score_BNA**alpha * iou_BNA**beta
  # Below every real alignment, also one that is 0.
  aligned_BNA = jnp.where(allowed_BNA, aligned_BNA, -1.0)
  best_BNK, _ = jax.lax.top_k(aligned_BNA, min(top, aligned_BNA.shape[-1]))
  least_BN1 = jnp.maximum(best_BNK[..., -1:], 0.0)
  chosen_BNA = aligned_BNA >= least_BN1
  # Of the objects that chose a prediction, the one that it overlaps most.
  iou_BNA = jnp.where(chosen_BNA, iou_BNA, -1.0)
  owner_BA = jnp.argmax(iou_BNA, axis=1)
  own_BNA = jnp.arange(truth_BN4.shape[1])[None, :, None] == owner_BA[:, None]
  own_BNA &= chosen_BNA
  aligned_BNA = jnp.where(own_BNA, aligned_BNA, 0.0)
  most_BN1 = jnp.where(own_BNA, iou_BNA, 0.0).max(-1, keepdims=True)
  largest_BN1 = aligned_BNA.max(-1, keepdims=True)
  share_BNA = aligned_BNA / jnp.maximum(largest_BN1, 1e-12) * most_BN1
  return Assigned(owner_BA.astype(jnp.int32), share_BNA.sum(1))


def _within(points_A2, boxes_BN4) -> jax.Array:
  """bool [B, N, A]: the points in a box, or the nearest one if none is."""
  points = points_A2[None, None]
  boxes = boxes_BN4[:, :, None]
  inside_BNA = (
    boxes_lib.to_sides(
      jnp.broadcast_to(points, (*boxes_BN4.shape[:2], *points_A2.shape)),
      jnp.broadcast_to(boxes, (*boxes_BN4.shape[:2], len(points_A2), 4)),
    ).min(-1)
    > 0
  )
  apart_BNA = jnp.square(points - boxes_lib.to_centres(boxes)[..., :2]).sum(-1)
  nearest_BN1 = jnp.argmin(apart_BNA, axis=-1)[..., None]
  is_nearest_BNA = jnp.arange(len(points_A2))[None, None] == nearest_BN1
  return inside_BNA | (is_nearest_BNA & ~inside_BNA.any(-1, keepdims=True))


def covered(points_A2, boxes_BN4, real_BN) -> jax.Array:
  """bool [B, A]: the points that are in one of the boxes."""
  low = points_A2[None, None] > boxes_BN4[:, :, None, :2]
  high = points_A2[None, None] < boxes_BN4[:, :, None, 2:]
  inside_BNA = (low & high).all(-1) & (real_BN > 0)[..., None]
  return inside_BNA.any(1)


def class_loss(logits_BAC, kind_BA, share_BA, idle_BA) -> jax.Array:
  """The sum over classes of binary cross entropies, [B, A].

  Args:
    logits_BAC: of the predictions.
    kind_BA: int32, the class of the object that each learns.
    share_BA: the score to learn for that class; that of others is 0.
    idle_BA: bool, where the loss is 0 unless there is a score to learn.
  """
  kind_BAC = jax.nn.one_hot(kind_BA, logits_BAC.shape[-1])
  wanted_BAC = kind_BAC * share_BA[..., None]
  entropy_BA = losses.binary_cross_entropy(logits_BAC, wanted_BAC).sum(-1)
  return jnp.where(idle_BA & (share_BA == 0), 0.0, entropy_BA)


def bins_loss(found, own_BA4) -> jax.Array:
  """The distribution focal loss [B, A] (arXiv:2006.04388, equation 6).

  It is the mean over the four sides of the cross entropy with a distribution on
  the two bins beside the true distance, whose mean is that distance.

  Args:
    found: "bins" [B, A, 4, R], logits of distances 0 to R - 1 in strides;
      "points" [A, 2] and "strides" [A] in pixels.
    own_BA4: the box of the object that each prediction learns.
  """
  logits_BA4R = found["bins"]
  points_BA2 = jnp.broadcast_to(found["points"][None], own_BA4[..., :2].shape)
  sides_BA4 = boxes_lib.to_sides(points_BA2, own_BA4)
  sides_BA4 = sides_BA4 / found["strides"][None, :, None]
  last = logits_BA4R.shape[-1] - 1
  sides_BA4 = jnp.clip(sides_BA4, 0.0, last - 0.01)
  bins = jnp.arange(last + 1, dtype=jnp.float32).reshape(1, 1, 1, -1)
  near_BA4R = jnp.maximum(1 - jnp.abs(sides_BA4[..., None] - bins), 0.0)
  nats_BA4 = -(near_BA4R * jax.nn.log_softmax(logits_BA4R)).sum(-1)
  return nats_BA4.mean(-1)
