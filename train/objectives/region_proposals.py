"""The two stages of Faster R-CNN: proposals, samples and their losses."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from train.objectives import boxes as boxes_lib
from train.objectives import losses

# Of the codes of regions, as in torchvision.
WEIGHTS = (10.0, 10.0, 5.0, 5.0)
# The largest share of sampled regions that have an object.
POSITIVES = 0.25
# Where the loss of codes turns from a square into an absolute value.
_BEND = 1 / 9


class Truth(NamedTuple):
  """The objects of a batch: boxes [B, N, 4], classes, real and crowd [B, N]."""

  boxes: jax.Array
  classes: jax.Array
  real: jax.Array
  crowd: jax.Array


class Matched(NamedTuple):
  """What each of M boxes is to learn, [B, M].

  owner: int32, the object of largest IoU.
  positive: bool, whether it learns that object.
  negative: bool, whether it learns that there is none; the rest learn nothing.
  """

  owner: jax.Array
  positive: jax.Array
  negative: jax.Array


def matched(boxes_BM4, truth: Truth, low: float, high: float, best=False):
  """Matches boxes with the objects they overlap.

  A box is positive from an IoU of `high` on and negative below `low`. With
  `best`, the boxes of an object's largest IoU are positive as well. A box that
  is negative and overlaps a crowd by `low` is neither.
  """
  iou_BNM = boxes_lib.pairwise(truth.boxes, boxes_BM4)
  own_BNM = jnp.where(truth.real[..., None] > 0, iou_BNM, -1.0)
  owner_BM, iou_BM = own_BNM.argmax(1), own_BNM.max(1)
  positive_BM = iou_BM >= high
  if best:
    most_BN1 = jnp.maximum(own_BNM.max(-1, keepdims=True), 1e-6)
    positive_BM |= (own_BNM >= most_BN1).any(1)
  crowd_BM = jnp.where(truth.crowd[..., None] > 0, iou_BNM, 0.0).max(1) >= low
  negative_BM = (iou_BM < low) & ~positive_BM & ~crowd_BM
  return Matched(owner_BM.astype(jnp.int32), positive_BM, negative_BM)


def sampled(found: Matched, rng, count: int, share: float):
  """A random sample of `count` boxes an image, of which positives come first.

  Args:
    found: of M boxes.
    rng: a random key.
    count: S, at most M.
    share: the largest share of positives.

  Returns:
    (places int32 [B, S], real [B, S]): the sampled boxes; real is 0 where there
    are fewer than S.
  """
  draw_BM = jax.random.uniform(rng, found.positive.shape)
  count = min(count, draw_BM.shape[1])
  # Negatives are in 1..2, positives in 2..3, of which some become 0.
  score_BM = jnp.where(found.positive, draw_BM + 2, 0.0)
  most = max(1, int(count * share))
  if most < score_BM.shape[1]:
    least_B1 = jax.lax.top_k(score_BM, most + 1)[0][:, -1:]
    score_BM = jnp.where(score_BM > least_B1, score_BM, 0.0)
  score_BM = jnp.where(found.negative, draw_BM + 1, score_BM)
  top_BS, place_BS = jax.lax.top_k(score_BM, count)
  return place_BS, (top_BS > 0).astype(jnp.float32)


def proposals(
  found, size, *, threshold: float, before: int, after: int
) -> jax.Array:
  """The regions of highest objectness, [B, R, 4] in pixels, and their scores.

  Of each level, the `before` best ones are kept; suppression is within a level.

  Args:
    found: the first stage's "objectness", "codes", "anchors" and "of".
    size: (height, width) of the picture, to which regions are clipped.
    threshold: of the IoU, for non-maximum suppression.
    before: regions of each level before suppression.
    after: R, regions of an image; if there are fewer, boxes without area.
  """
  score_BA = jax.nn.sigmoid(found["objectness"])
  boxes, scores, of = [], [], []
  anchors_BA4 = jnp.broadcast_to(found["anchors"][None], found["codes"].shape)
  levels = len(found["levels"])
  for level in range(levels):
    own_BA = jnp.where((found["of"] == level)[None], score_BA, -1.0)
    top_BM, place_BM = jax.lax.top_k(own_BA, min(before, own_BA.shape[1]))
    codes, anchors = (
      jnp.take_along_axis(each, place_BM[..., None], axis=1)
      for each in (found["codes"], anchors_BA4)
    )
    region_BM4 = boxes_lib.clipped(boxes_lib.decoded(codes, anchors), *size)
    real_BM = (top_BM > 0) & (boxes_lib.area(region_BM4) > 0)
    boxes.append(region_BM4)
    scores.append(jnp.where(real_BM, top_BM, 0.0))
    of.append(jnp.full(top_BM.shape, level))
  boxes, scores, of = (jnp.concatenate(x, 1) for x in (boxes, scores, of))
  kept = boxes_lib.kept(boxes, scores, threshold, of)
  best = boxes_lib.strongest(boxes, jnp.where(kept, scores, 0.0), of, after)
  return jnp.where(best["scores"][..., None] > 0, best["boxes"], 0.0)


def first_loss(found, truth: Truth, rng, *, count: int):
  """The losses [B] of objectness and of the anchors' codes.

  Both are sums over the sampled anchors, half of them positive at most, divided
  by their number.
  """
  anchors_BA4 = jnp.broadcast_to(found["anchors"][None], found["codes"].shape)
  match = matched(anchors_BA4, truth, 0.3, 0.7, best=True)
  place_BS, real_BS = sampled(match, rng, count, 0.5)

  def chosen(x):
    if x.ndim == 3:
      return jnp.take_along_axis(x, place_BS[..., None], axis=1)
    return jnp.take_along_axis(x, place_BS, axis=1)

  positive_BS = chosen(match.positive).astype(jnp.float32) * real_BS
  entropy_BS = losses.binary_cross_entropy(
    chosen(found["objectness"]), positive_BS
  )
  owner_BS = chosen(match.owner)
  own_BS4 = jnp.take_along_axis(truth.boxes, owner_BS[..., None], axis=1)
  wanted_BS4 = boxes_lib.encoded(own_BS4, chosen(anchors_BA4))
  codes_BS = _bent(chosen(found["codes"]) - wanted_BS4)
  many_B = jnp.maximum(real_BS.sum(1), 1.0)
  codes_B = jnp.where(positive_BS > 0, codes_BS, 0.0).sum(1)
  return (entropy_BS * real_BS).sum(1) / many_B, codes_B / many_B


class Sampled(NamedTuple):
  """Regions to learn from: boxes [B, S, 4], and of each [B, S] the rest.

  kind: int32, 0 for no object, else the class + 1.
  owner: int32, the object of the box.
  real: 0 where there is no region.
  """

  boxes: jax.Array
  kind: jax.Array
  owner: jax.Array
  real: jax.Array


def regions_to_learn(boxes_BR4, truth: Truth, rng, *, count: int) -> Sampled:
  """Samples from the proposals and the objects themselves, which are added.

  An IoU of 0.5 makes a region positive; these are a quarter at most.
  """
  real_BN = truth.real[..., None] > 0
  both = [boxes_BR4, jnp.where(real_BN, truth.boxes, 0.0)]
  boxes_BM4 = jax.lax.stop_gradient(jnp.concatenate(both, axis=1))
  match = matched(boxes_BM4, truth, 0.5, 0.5)
  there_BM = boxes_lib.area(boxes_BM4) > 0
  match = match._replace(negative=match.negative & there_BM)
  place_BS, real_BS = sampled(match, rng, count, POSITIVES)
  owner_BS = jnp.take_along_axis(match.owner, place_BS, axis=1)
  kind_BS = 1 + jnp.take_along_axis(truth.classes, owner_BS, axis=1)
  is_object_BS = jnp.take_along_axis(match.positive, place_BS, axis=1)
  return Sampled(
    jnp.take_along_axis(boxes_BM4, place_BS[..., None], axis=1),
    jnp.where(is_object_BS & (real_BS > 0), kind_BS, 0),
    owner_BS,
    real_BS,
  )


def second_loss(found, chosen: Sampled, truth: Truth):
  """The losses [B] of the classes and of the codes of sampled regions."""
  entropy_BS = losses.cross_entropy(found["logits"], chosen.kind)
  own_BS4 = jnp.take_along_axis(truth.boxes, chosen.owner[..., None], axis=1)
  wanted_BS4 = boxes_lib.encoded(own_BS4, chosen.boxes, WEIGHTS)
  place_BS = jnp.maximum(chosen.kind - 1, 0)[..., None, None]
  codes_BS4 = jnp.take_along_axis(found["codes"], place_BS, axis=2)[:, :, 0]
  codes_BS = jnp.where(chosen.kind > 0, _bent(codes_BS4 - wanted_BS4), 0.0)
  many_B = jnp.maximum(chosen.real.sum(1), 1.0)
  return (entropy_BS * chosen.real).sum(1) / many_B, codes_BS.sum(1) / many_B


def _bent(difference) -> jax.Array:
  """The sum over the last axis of the smooth absolute value."""
  return (optax.huber_loss(difference, delta=_BEND) / _BEND).sum(-1)
