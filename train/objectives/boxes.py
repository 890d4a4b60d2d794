"""Boxes (x0, y0, x1, y1): overlap, codes, and suppression of duplicates.

Positions are in pixels or cells from the upper left corner; a box does not
contain its right and lower end. Functions take any leading axes.
"""

import math

import jax
import jax.numpy as jnp

KINDS = ("iou", "giou", "ciou")
# The largest logarithm of a ratio of sides that is decoded, as in torchvision.
_MOST_LOG = math.log(1000 / 16)
_TINY = 1e-6


def area(boxes: jax.Array) -> jax.Array:
  """[..., 4] -> [...]; 0 for a box whose end comes before its beginning."""
  return jnp.prod(jnp.maximum(boxes[..., 2:] - boxes[..., :2], 0.0), axis=-1)


def overlap(a: jax.Array, b: jax.Array, kind: str = "iou") -> jax.Array:
  """The overlap of boxes, [..., 4] and [..., 4] -> [...].

  Args:
    a: boxes.
    b: boxes; axes of size 1 are repeated.
    kind: "iou", intersection over union, from 0 to 1; "giou"
      (arXiv:1902.09630), which falls below 0 as boxes move apart; or "ciou"
      (arXiv:1911.08287), which also compares centres and aspect ratios.
  """
  low = jnp.maximum(a[..., :2], b[..., :2])
  high = jnp.minimum(a[..., 2:], b[..., 2:])
  shared = jnp.prod(jnp.maximum(high - low, 0.0), axis=-1)
  union = area(a) + area(b) - shared
  iou = shared / jnp.maximum(union, _TINY)
  if kind == "iou":
    return iou
  around = jnp.maximum(a[..., 2:], b[..., 2:]) - jnp.minimum(
    a[..., :2], b[..., :2]
  )
  if kind == "giou":
    hull = jnp.prod(around, axis=-1)
    return iou - (hull - union) / jnp.maximum(hull, _TINY)
  apart = (a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) / 2
  far = jnp.sum(apart**2, -1) / jnp.maximum(jnp.sum(around**2, -1), _TINY)
  turn = _angle(a) - _angle(b)
  shape = 4 / math.pi**2 * turn**2
  # The weight of the shape is no function to be learned.
  weight = jax.lax.stop_gradient(shape / jnp.maximum(1 - iou + shape, _TINY))
  return iou - far - weight * shape


def _angle(boxes: jax.Array) -> jax.Array:
  """arctan(width / height), with a gradient also for boxes without area."""
  sides = jnp.maximum(boxes[..., 2:] - boxes[..., :2], _TINY)
  return jnp.arctan2(sides[..., 0], sides[..., 1])


def pairwise(a: jax.Array, b: jax.Array, kind: str = "iou") -> jax.Array:
  """The overlap of all pairs, [..., N, 4] and [..., M, 4] -> [..., N, M]."""
  return overlap(a[..., :, None, :], b[..., None, :, :], kind)


def from_sides(points: jax.Array, sides: jax.Array) -> jax.Array:
  """Boxes [..., 4] from distances to the left, upper, right and lower side.

  Args:
    points: [..., 2], (x, y).
    sides: [..., 4] of the same number of axes.
  """
  return jnp.concatenate(
    [points - sides[..., :2], points + sides[..., 2:]], axis=-1
  )


def to_sides(points: jax.Array, boxes: jax.Array) -> jax.Array:
  """The distances of `from_sides`; below 0 where a point is outside."""
  return jnp.concatenate(
    [points - boxes[..., :2], boxes[..., 2:] - points], axis=-1
  )


def to_centres(boxes: jax.Array) -> jax.Array:
  """(x0, y0, x1, y1) -> (x, y of the centre, width, height)."""
  low, high = boxes[..., :2], boxes[..., 2:]
  return jnp.concatenate([(low + high) / 2, high - low], axis=-1)


def from_centres(boxes: jax.Array) -> jax.Array:
  """(x, y of the centre, width, height) -> (x0, y0, x1, y1)."""
  centre, half = boxes[..., :2], boxes[..., 2:] / 2
  return jnp.concatenate([centre - half, centre + half], axis=-1)


def encoded(boxes, anchors, weights=(1.0, 1.0, 1.0, 1.0)) -> jax.Array:
  """The codes of boxes by anchors, [..., 4] (R-CNN, arXiv:1311.2524, C).

  The shift of the centre is in sides of the anchor, and the ratio of the sides
  is a logarithm; both are multiplied by `weights`. Sides without length count
  as tiny ones.
  """
  own, anchor = to_centres(boxes), to_centres(anchors)
  side = jnp.maximum(anchor[..., 2:], _TINY)
  shift = (own[..., :2] - anchor[..., :2]) / side
  ratio = jnp.log(jnp.maximum(own[..., 2:], _TINY) / side)
  codes = jnp.concatenate([shift, ratio], axis=-1)
  return codes * _along_last(weights, codes.ndim)


def decoded(codes, anchors, weights=(1.0, 1.0, 1.0, 1.0)) -> jax.Array:
  """The boxes of codes, the inverse of `encoded`.

  A side is at most 62.5 times that of its anchor, as in torchvision.
  """
  codes = codes / _along_last(weights, codes.ndim)
  anchor = to_centres(anchors)
  centre = codes[..., :2] * anchor[..., 2:] + anchor[..., :2]
  side = jnp.exp(jnp.minimum(codes[..., 2:], _MOST_LOG)) * anchor[..., 2:]
  return from_centres(jnp.concatenate([centre, side], axis=-1))


def _along_last(values, ndim: int) -> jax.Array:
  return jnp.asarray(values, jnp.float32).reshape((1,) * (ndim - 1) + (-1,))


def clipped(boxes: jax.Array, height: int, width: int) -> jax.Array:
  """Boxes within a picture of that size."""
  most = _along_last((width, height, width, height), boxes.ndim)
  return jnp.clip(boxes, 0.0, most)


def grid(height: int, width: int, stride: int) -> jax.Array:
  """The centres (x, y) of the cells of a grid, in pixels, [h * w, 2]."""
  x_HW, y_HW = jnp.meshgrid(jnp.arange(width), jnp.arange(height))
  points_HW2 = jnp.stack([x_HW, y_HW], axis=-1).astype(jnp.float32)
  return ((points_HW2 + 0.5) * stride).reshape(-1, 2)


def kept(boxes, scores, threshold: float, classes=None) -> jax.Array:
  """Non-maximum suppression: bool [..., N], whether each box is kept.

  A box is left out if its IoU with a kept box of a higher score (of two equal
  scores, the earlier box) exceeds the threshold.

  Args:
    boxes: [..., N, 4].
    scores: [..., N].
    threshold: from 0 to 1.
    classes: integers [..., N]; boxes of different classes do not suppress each
      other. None treats all alike.
  """
  if boxes.ndim > 2:
    more = () if classes is None else (classes,)
    return jax.vmap(lambda b, s, *c: kept(b, s, threshold, *c))(
      boxes, scores, *more
    )
  order_N = jnp.argsort(-scores, stable=True)
  sorted_N4 = boxes[order_N]
  over_NN = pairwise(sorted_N4, sorted_N4) > threshold
  if classes is not None:
    sorted_N = classes[order_N]
    over_NN &= sorted_N[:, None] == sorted_N[None]
  # Row i has the boxes before i that would suppress it.
  over_NN = jnp.tril(over_NN, -1)

  # After k rounds all boxes are right whose chain of suppressions has at most
  # k links, so that the result no longer changes once it is right.
  def changed(carry):
    return carry[1]

  def suppress(carry):
    kept_N, _ = carry
    found_N = ~(over_NN & kept_N[None]).any(-1)
    return found_N, (found_N != kept_N).any()

  first = jnp.ones(scores.shape, bool)
  kept_N, _ = jax.lax.while_loop(changed, suppress, (first, jnp.asarray(True)))
  return jnp.zeros(scores.shape, bool).at[order_N].set(kept_N)


def strongest(boxes, scores, classes, count: int) -> dict[str, jax.Array]:
  """The `count` entries of highest score, as a prediction "detections".

  Args:
    boxes: [B, N, 4] in pixels of the input.
    scores: [B, N]; 0 where there is none.
    classes: integers [B, N].
    count: K; with fewer than K entries, empty ones are added.
  """
  missing = max(0, count - scores.shape[1])
  if missing:
    room = ((0, 0), (0, missing))
    scores, classes = jnp.pad(scores, room), jnp.pad(classes, room)
    boxes = jnp.pad(boxes, (*room, (0, 0)))
  scores_BK, place_BK = jax.lax.top_k(scores.astype(jnp.float32), count)
  return {
    "boxes": jnp.take_along_axis(boxes, place_BK[..., None], axis=1),
    "scores": scores_BK,
    "classes": jnp.take_along_axis(classes, place_BK, axis=1).astype(jnp.int32),
  }


def detections(
  boxes,
  scores,
  *,
  count: int,
  threshold: float,
  candidates: int = 400,
  agnostic: bool = False,
) -> dict[str, jax.Array]:
  """The prediction "detections" of boxes that each have a score per class.

  Of all pairs of a box and a class, the `candidates` of highest score are
  suppressed class by class, and the `count` best ones of the rest are returned.

  Args:
    boxes: [B, N, 4], or [B, N, C, 4] if a box depends on the class.
    scores: probabilities [B, N, C].
    count: K.
    threshold: of the IoU, for non-maximum suppression.
    candidates: the number of pairs that are compared with each other.
    agnostic: whether boxes of different classes suppress each other.
  """
  B, N, C = scores.shape
  top_BM, place_BM = jax.lax.top_k(
    scores.reshape(B, N * C), min(candidates, N * C)
  )
  flat, of_box = (boxes.reshape(B, -1, 4), place_BM)
  if boxes.ndim == 3:
    of_box = place_BM // C
  boxes_BM4 = jnp.take_along_axis(flat, of_box[..., None], axis=1)
  classes_BM = place_BM % C
  kept_BM = kept(boxes_BM4, top_BM, threshold, None if agnostic else classes_BM)
  return strongest(
    boxes_BM4, jnp.where(kept_BM, top_BM, 0.0), classes_BM, count
  )
