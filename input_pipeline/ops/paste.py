"""An op that pastes objects of another example into a picture."""

import tensorflow as tf

from input_pipeline.ops import Example, on_pair
from input_pipeline.ops.parts import moving

_NEEDED = ("image", moving.BOXES, moving.INSTANCES)


@on_pair
def copy_paste(
  example: Example,
  partner: Example,
  share: float = 0.5,
  p: float = 1.0,
  keep: float = 0.25,
  *,
  seed,
) -> Example:
  """Objects of another example, cut out by their masks, over the picture.

  The simple copy-paste of arXiv:2012.07177, without blurred edges; the scale
  jitter and flips come from the ops before it. Own objects lose the pixels that
  are covered: their boxes shrink to what is left, and they are left out if less
  than the share `keep` of their mask remains. Crowds are not pasted.

  Args:
    example: has "image" [h, w, c], "boxes" [n, 4], "instances" [n, h, w], and
      any of "classes", "crowd", "difficult" and "segmentation".
    partner: the other example, with the same fields and size of picture.
    share: the probability with which each object of the partner is pasted.
    p: the probability that anything is pasted.
    keep: from 0 to 1.
    seed: int64 [2].

  Raises:
    ValueError: a field is missing, the sizes differ, or a share is no share.
  """
  _check(example, partner, dict(share=share, p=p, keep=keep))
  own, other = example[moving.INSTANCES] > 0, partner[moving.INSTANCES] > 0
  n = tf.shape(other)[0]
  seeds = tf.random.split(seed, 2)
  chance = tf.where(tf.random.stateless_uniform([], seeds[0]) < p, share, 0.0)
  pasted = tf.random.stateless_uniform([n], seeds[1]) < chance
  if "crowd" in partner:
    pasted &= tf.equal(tf.cast(partner["crowd"], tf.int32), 0)
  over = tf.reduce_any(tf.boolean_mask(other, pasted), axis=0)  # [h, w]

  left = own & ~over[None]
  before = _area(own)
  after = _area(left)
  kept = (after > 0) & (tf.cast(after, tf.float32) >= keep * _float(before))
  kept |= after == before  # also of objects whose masks are empty
  cut = after < before
  boxes = tf.cast(example[moving.BOXES], tf.float32)
  boxes = tf.where(cut[:, None], _boxes(left), boxes)

  changed = dict(example)
  changed["image"] = tf.where(
    over[..., None], partner["image"], example["image"]
  )
  mine = {**example, moving.BOXES: boxes}
  mine[moving.INSTANCES] = tf.cast(left, example[moving.INSTANCES].dtype)
  for name in (moving.BOXES, *moving.OF_BOXES):
    if name in example:
      theirs = tf.cast(partner[name], mine[name].dtype)
      parts = [
        tf.boolean_mask(mine[name], kept),
        tf.boolean_mask(theirs, pasted),
      ]
      changed[name] = tf.concat(parts, axis=0)
  if moving.SEGMENTATION in example:
    first, second = example[moving.SEGMENTATION], partner[moving.SEGMENTATION]
    here = over[..., None] if first.shape.rank == 3 else over
    changed[moving.SEGMENTATION] = tf.where(here, second, first)
  return changed


def _check(example: Example, partner: Example, shares: dict) -> None:
  for name, value in shares.items():
    if not 0 <= value <= 1:
      raise ValueError(f"{name}={value!r} is not a share from 0 to 1")
  for name in _NEEDED:
    if name not in example:
      raise ValueError(f"no field {name!r}; valid: {', '.join(example)}")
  if moving.KEYPOINTS in example:
    raise ValueError("it pastes boxes and masks, not keypoints")
  if f"{moving.BOXES}_mask" in example:
    raise ValueError('it comes before pad(…, inkey="boxes")')
  own, other = example["image"].shape, partner["image"].shape
  known = own.rank == 3 and own.is_fully_defined()
  if not known or own != other:
    raise ValueError(
      "needs images of the same size; add decode and resize(...) or a crop"
      " before it"
    )


def _float(value: tf.Tensor) -> tf.Tensor:
  return tf.cast(value, tf.float32)


def _area(inside: tf.Tensor) -> tf.Tensor:
  """The pixels of masks [n, h, w], int32 [n]."""
  return tf.reduce_sum(tf.cast(inside, tf.int32), axis=[1, 2])


def _boxes(inside: tf.Tensor) -> tf.Tensor:
  """The boxes around masks [n, h, w], float32 [n, 4]; zeros of empty ones."""
  ends = []
  for axis in (1, 2):  # the columns, then the rows
    there = tf.reduce_any(inside, axis=axis)
    size = tf.shape(there)[1]
    place = tf.range(size)
    first = tf.reduce_min(tf.where(there, place, size), axis=1)
    last = tf.reduce_max(tf.where(there, place + 1, 0), axis=1)
    ends.append((tf.minimum(first, last), last))
  (x0, x1), (y0, y1) = ends
  return _float(tf.stack([x0, y0, x1, y1], axis=1))
