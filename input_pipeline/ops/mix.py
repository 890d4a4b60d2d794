"""Ops that blend an example with another example, its partner.

The pipeline draws the partner from all of the training data (see partners.py)
and applies the preceding ops to both. The two images must have the same size.
The label becomes float32 [classes], the share of each class in the mixture. Of
pictures with boxes, `mixup` joins the boxes of both; of pictures with a
segmentation, `cutmix` pastes its classes. Neither needs a label then.
"""

import tensorflow as tf

from input_pipeline.ops import Context, Example, on_pair
from input_pipeline.ops.image import like, uniform_place
from input_pipeline.ops.parts import moving


@on_pair
def mixup(
  example: Example,
  partner: Example,
  alpha: float = 0.2,
  p: float = 1.0,
  inkey: str = "image",
  label: str = "label",
  classes: int | None = None,
  least: float = 0.1,
  *,
  seed,
  context: Context,
) -> Example:
  """Mixes images and labels as lam * own + (1 - lam) * partner.

  Zhang et al., 2018, arXiv:1710.09412. lam is drawn from Beta(alpha, alpha) for
  each example; with probability 1 - p it is 1. The boxes of both pictures are
  joined, with their classes, masks and keypoints (arXiv:1902.04103); those of a
  picture whose share in the mixture is below `least` are left out.
  """
  seeds = tf.random.split(seed, 2)
  lam = _lam(alpha, p, seeds[0])
  own, other = _images(example, partner, inkey, "mixup")
  first, second = tf.cast(own, tf.float32), tf.cast(other, tf.float32)
  mixed = like(first * lam + second * (1.0 - lam), own.dtype)
  joined = _joined(example, partner, lam, least)
  given = (example, partner, inkey, mixed, lam, label, classes, context)
  return {**_blended(*given), **joined}


@on_pair
def cutmix(
  example: Example,
  partner: Example,
  alpha: float = 1.0,
  p: float = 1.0,
  inkey: str = "image",
  label: str = "label",
  classes: int | None = None,
  *,
  seed,
  context: Context,
) -> Example:
  """Pastes a box of the partner's image; labels are weighted by area.

  Yun et al., 2019, arXiv:1905.04899. lam is drawn from Beta(alpha, alpha).
  Each side of the box is sqrt(1 - lam) times that of the image; its center is
  drawn uniformly, and it is clipped at the border. With probability 1 - p there
  is no box. A decoded segmentation is pasted with the image.
  """
  seeds = tf.random.split(seed, 2)
  lam = _lam(alpha, p, seeds[0])
  own, other = _images(example, partner, inkey, "cutmix")
  box, lam = _box(own, lam, seeds[1])
  mixed = tf.where(box[..., None], other, own)
  pasted = {}
  if moving.SEGMENTATION in example:
    first, second = example[moving.SEGMENTATION], partner[moving.SEGMENTATION]
    here = box[..., None] if first.shape.rank == 3 else box
    pasted[moving.SEGMENTATION] = tf.where(here, second, first)
  given = (example, partner, inkey, mixed, lam, label, classes, context)
  return {**_blended(*given), **pasted}


@on_pair
def mixup_or_cutmix(
  example: Example,
  partner: Example,
  mixup_alpha: float = 0.8,
  cutmix_alpha: float = 1.0,
  switch: float = 0.5,
  p: float = 1.0,
  inkey: str = "image",
  label: str = "label",
  classes: int | None = None,
  *,
  seed,
  context: Context,
) -> Example:
  """Applies cutmix with probability `switch`, else mixup, as in DeiT.

  Touvron et al., 2021, arXiv:2012.12877.
  """
  seeds = tf.random.split(seed, 3)
  chance = tf.random.stateless_uniform([], seeds[0]) < switch
  arguments = (p, inkey, label, classes)
  kwargs = dict(context=context)
  blended = mixup(
    example, partner, mixup_alpha, *arguments, seed=seeds[1], **kwargs
  )
  pasted = cutmix(
    example, partner, cutmix_alpha, *arguments, seed=seeds[2], **kwargs
  )
  return {
    name: tf.where(chance, pasted[name], blended[name])
    if name in (inkey, label)
    else leaf
    for name, leaf in blended.items()
  }


def _lam(alpha: float, p: float, seed: tf.Tensor) -> tf.Tensor:
  """Returns a draw from Beta(alpha, alpha) with probability p, else 1."""
  if not alpha > 0:
    raise ValueError(f"alpha={alpha!r} is not positive")
  seeds = tf.random.split(seed, 2)
  # A ratio of draws from Gamma(alpha), in float64, as float32 often gives 0.
  gamma = tf.random.stateless_gamma([2], seeds[0], alpha, dtype=tf.float64)
  lam = tf.cast(gamma[0] / tf.maximum(gamma[0] + gamma[1], 1e-300), tf.float32)
  return tf.where(tf.random.stateless_uniform([], seeds[1]) < p, lam, 1.0)


# The fields with places that an op can mix.
_MIXED = {
  "mixup": (
    moving.BOXES,
    moving.KEYPOINTS,
    moving.INSTANCES,
    moving.PLACE,
  ),
  "cutmix": (moving.SEGMENTATION, moving.PLACE),
}


def _images(example: Example, partner: Example, inkey: str, op: str):
  if inkey not in example:
    raise ValueError(f"no field {inkey!r}; valid: {', '.join(example)}")
  refused = [n for n in moving.PLACES if n in example and n not in _MIXED[op]]
  if refused:
    raise ValueError(
      f"{op} cannot mix the field {refused[0]!r}; mosaic and copy_paste join"
      " boxes, mixup joins boxes, and cutmix pastes a segmentation"
    )
  if f"{moving.BOXES}_mask" in example:
    raise ValueError('it joins boxes, so it comes before pad(…, inkey="boxes")')
  own, other = example[inkey], partner[inkey]
  if own.dtype == tf.string:
    raise ValueError(
      "the images are not decoded; add the op 'decode' before it"
    )
  if not own.shape.is_fully_defined() or own.shape != other.shape:
    raise ValueError(
      "needs images of the same size; add resize(...) or a crop before it"
    )
  return own, other


def _joined(
  example: Example, partner: Example, lam: tf.Tensor, least: float
) -> Example:
  """The boxes of both pictures with their values, and the keypoints."""
  found = {}
  names = (moving.BOXES, moving.KEYPOINTS, *moving.OF_BOXES)
  for name in names:
    # Without boxes, "classes" is no field of theirs.
    alone = name in moving.OF_BOXES and moving.BOXES not in example
    if name not in example or (alone and name != moving.INSTANCES):
      continue
    parts = []
    for each, share in ((example, lam), (partner, 1.0 - lam)):
      value = tf.convert_to_tensor(each[name])
      seen = tf.fill([tf.shape(value)[0]], share >= least)
      parts.append(tf.boolean_mask(value, seen))
    found[name] = tf.concat(parts, axis=0)
  return found


def _box(own: tf.Tensor, lam: tf.Tensor, seed: tf.Tensor):
  """Returns (bool [h, w], true in the box; the share outside of it)."""
  height, width = own.shape[0], own.shape[1]
  side = tf.sqrt(1.0 - lam)
  shape = tf.constant([height, width])
  extent = tf.cast(side * tf.cast(shape, tf.float32), tf.int32)
  start = uniform_place(shape, seed) - extent // 2
  end = tf.minimum(start + extent, shape)
  start = tf.maximum(start, 0)

  def inside(axis: int) -> tf.Tensor:
    place = tf.range(shape[axis])
    return (place >= start[axis]) & (place < end[axis])

  box = inside(0)[:, None] & inside(1)[None, :]
  area = tf.reduce_prod(tf.cast(end - start, tf.float32))
  return box, 1.0 - area / (height * width)


def _blended(example, partner, inkey, mixed, lam, label, classes, context):
  """Returns the example with the mixed image and label."""
  classes = context.num_classes if classes is None else classes
  placed = any(n in example for n in moving.PLACES if n != moving.PLACE)
  if label not in example and placed:
    return {**example, inkey: mixed}
  if label not in example:
    raise ValueError(f"no field {label!r}; valid: {', '.join(example)}")
  if classes is None:
    raise ValueError("the number of classes is unknown; set classes=")
  own = tf.one_hot(example[label], classes)
  other = tf.one_hot(partner[label], classes)
  shares = own * lam + other * (1.0 - lam)
  return {**example, inkey: mixed, label: shares}
