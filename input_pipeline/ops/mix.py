"""Ops that blend an example with another one, its partner.

The pipeline draws the partner from all of the training data, see partners.py,
and applies the ops before to both. Both images must be of one size. The label
becomes float32 [classes]: the shares of the classes in the mixture.
"""

import tensorflow as tf

from input_pipeline.ops import Context, Example, on_pair
from input_pipeline.ops.image import like, uniform_place


@on_pair
def mixup(
  example: Example,
  partner: Example,
  alpha: float = 0.2,
  p: float = 1.0,
  inkey: str = "image",
  label: str = "label",
  classes: int | None = None,
  *,
  seed,
  context: Context,
) -> Example:
  """lam * own + (1 - lam) * partner, of images and labels alike.

  Zhang et al., 2018, arXiv:1710.09412; lam is of Beta(alpha, alpha), drawn for
  each example, or 1 with probability 1 - p.
  """
  seeds = tf.random.split(seed, 2)
  lam = _lam(alpha, p, seeds[0])
  own, other = _images(example, partner, inkey)
  first, second = tf.cast(own, tf.float32), tf.cast(other, tf.float32)
  mixed = like(first * lam + second * (1.0 - lam), own.dtype)
  return _blended(example, partner, inkey, mixed, lam, label, classes, context)


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
  """A box of the partner's image pasted in; labels by the areas left of each.

  Yun et al., 2019, arXiv:1905.04899: lam is of Beta(alpha, alpha), the box has
  sides sqrt(1 - lam) of the image's and a uniform centre, and is cut at the
  border. With probability 1 - p there is no box.
  """
  seeds = tf.random.split(seed, 2)
  lam = _lam(alpha, p, seeds[0])
  own, other = _images(example, partner, inkey)
  mixed, lam = _pasted(own, other, lam, seeds[1])
  return _blended(example, partner, inkey, mixed, lam, label, classes, context)


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
  """cutmix with probability `switch`, else mixup; DeiT's (arXiv:2012.12877)."""
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
  """A draw of Beta(alpha, alpha) with probability p, else 1; float32."""
  if not alpha > 0:
    raise ValueError(f"alpha={alpha!r} is not positive")
  seeds = tf.random.split(seed, 2)
  # Two draws of Gamma(alpha), in float64: one of float32 may well be 0.
  gamma = tf.random.stateless_gamma([2], seeds[0], alpha, dtype=tf.float64)
  lam = tf.cast(gamma[0] / tf.maximum(gamma[0] + gamma[1], 1e-300), tf.float32)
  return tf.where(tf.random.stateless_uniform([], seeds[1]) < p, lam, 1.0)


def _images(example: Example, partner: Example, inkey: str):
  if inkey not in example:
    raise ValueError(f"no field {inkey!r}; valid: {', '.join(example)}")
  own, other = example[inkey], partner[inkey]
  if own.dtype == tf.string:
    raise ValueError("the images are not decoded; add the op 'decode' before")
  if not own.shape.is_fully_defined() or own.shape != other.shape:
    raise ValueError(
      "needs images of one size; add resize(...) or a crop before"
    )
  return own, other


def _pasted(own, other, lam, seed):
  """(own with a box of other in it, the share of own that is left)."""
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

  box = (inside(0)[:, None] & inside(1)[None, :])[..., None]
  area = tf.reduce_prod(tf.cast(end - start, tf.float32))
  return tf.where(box, other, own), 1.0 - area / (height * width)


def _blended(example, partner, inkey, mixed, lam, label, classes, context):
  """The example with the mixed image, and with the label of a mixture."""
  classes = context.num_classes if classes is None else classes
  if label not in example:
    raise ValueError(f"no field {label!r}; valid: {', '.join(example)}")
  if classes is None:
    raise ValueError("the source does not tell how many classes; set classes=")
  own = tf.one_hot(example[label], classes)
  other = tf.one_hot(partner[label], classes)
  shares = own * lam + other * (1.0 - lam)
  return {**example, inkey: mixed, label: shares}
