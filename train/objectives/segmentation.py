"""Segmentation: the weights of pixels, Dice, and views of large pictures."""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from train import types


def pixel_weights(
  label_BHW: jax.Array,
  num_classes: int,
  class_weights: Sequence[float] = (),
  ignored: Sequence[int] = (),
) -> jax.Array:
  """The weight of each pixel's loss, float32 [B, H, W].

  Args:
    label_BHW: integers. Values that are no class, such as 255, have weight 0.
    num_classes: C.
    class_weights: of each class; () weighs all alike.
    ignored: classes of weight 0.

  Raises:
    ValueError: there is not one weight for each class.
  """
  known_BHW = (label_BHW >= 0) & (label_BHW < num_classes)
  for kind in ignored:
    known_BHW &= label_BHW != kind
  if not class_weights:
    return known_BHW.astype(jnp.float32)
  if len(class_weights) != num_classes:
    raise ValueError(
      f"config.task.class_weights has {len(class_weights)} numbers and the"
      f" model {num_classes} classes"
    )
  weight_C = jnp.asarray(class_weights, jnp.float32)
  return known_BHW * jnp.take(weight_C, label_BHW, mode="clip")


def dice_loss(
  logits_BHWC: jax.Array, label_BHW: jax.Array, known_BHW: jax.Array
) -> jax.Array:
  """The soft Dice loss of each image, float32 [B] (arXiv:1606.04797).

  1 - 2 sum(p y) / (sum(p) + sum(y)), where p is the probability of a class and
  y is 1 on its pixels, summed over the pixels of an image that are known, and
  averaged over the classes that occur among these. Without any it is 0.
  """
  p_BHWC = jax.nn.softmax(logits_BHWC.astype(jnp.float32))
  y_BHWC = jax.nn.one_hot(label_BHW, logits_BHWC.shape[-1])
  known_BHW1 = known_BHW.astype(jnp.float32)[..., None]
  p_BHWC, y_BHWC = p_BHWC * known_BHW1, y_BHWC * known_BHW1
  y_BC = y_BHWC.sum((1, 2))
  shared_BC = (p_BHWC * y_BHWC).sum((1, 2))
  both_BC = p_BHWC.sum((1, 2)) + y_BC
  occurs_BC = (y_BC > 0).astype(jnp.float32)
  lost_BC = (1 - 2 * shared_BC / jnp.where(both_BC > 0, both_BC, 1)) * occurs_BC
  return lost_BC.sum(1) / jnp.maximum(occurs_BC.sum(1), 1)


def window_starts(length: int, window: int, overlap: float) -> list[int]:
  """Where windows along an axis begin, evenly spread; the last one ends it.

  Args:
    length: of the axis.
    window: of each window; [0] is returned if it is not smaller than the axis.
    overlap: the least share of a window that the next one covers too.
  """
  if window >= length:
    return [0]
  step = max(1, int(window * (1 - overlap)))
  count = math.ceil((length - window) / step) + 1
  return [round(i * (length - window) / (count - 1)) for i in range(count)]


def check_window(window: Sequence[int], overlap: float) -> None:
  """Raises ValueError unless these are a window and an overlap."""
  if window and (len(window) != 2 or min(window) < 1):
    raise ValueError(f"window={window!r} is not (height, width)")
  if not 0 <= overlap < 1:
    raise ValueError(f"overlap={overlap!r} is not within 0..1")


def in_views(
  predict: types.Predict, picture: str = "image", **views
) -> types.Predict:
  """A prediction of logits as mean probabilities, [B, H, W, classes].

  Args:
    predict: of the logits, [B, H, W, classes].
    picture: the field of the batch that is seen in several views.
    **views: window, overlap and flips of `averaged_probabilities`.
  """

  def probabilities(variables, batch, rng):
    def logits(image_BHWC):
      return predict(variables, {**batch, picture: image_BHWC}, rng)

    return averaged_probabilities(logits, batch[picture], **views)

  return probabilities


def averaged_probabilities(
  logits: Callable[[jax.Array], jax.Array],
  image_BHWC: jax.Array | np.ndarray,
  *,
  window: Sequence[int] = (),
  overlap: float = 0.5,
  flips: bool = False,
) -> jax.Array:
  """The mean probabilities of several views of an image, float32 [B, H, W, C].

  Of a JAX array, all windows are computed by one loop, which can be compiled.
  Of a NumPy array, `logits` is called for each window, so that it can be a
  compiled function, which has the same shape for images of many sizes; the
  result is a NumPy array, unless a single window covers the image.

  Args:
    logits: [B, h, w, C] -> [B, h, w, classes].
    image_BHWC: the images.
    window: (height, width) of windows that cover the image; () takes it whole.
    overlap: the least share of a window that the next one covers too.
    flips: whether each view is also seen mirrored from left to right.
  """
  B, H, W, C = image_BHWC.shape
  size = tuple(min(a, b) for a, b in zip(window or (H, W), (H, W), strict=True))
  starts = [
    (y, x)
    for y in window_starts(H, size[0], overlap)
    for x in window_starts(W, size[1], overlap)
  ]

  def seen(view_BhwC):
    p_BhwC = jax.nn.softmax(logits(view_BhwC).astype(jnp.float32))
    if not flips:
      return p_BhwC
    other_BhwC = jax.nn.softmax(
      logits(view_BhwC[:, :, ::-1]).astype(jnp.float32)
    )
    return (p_BhwC + other_BhwC[:, :, ::-1]) / 2

  if len(starts) == 1:
    return seen(image_BHWC)

  if isinstance(image_BHWC, np.ndarray):
    return _averaged_on_host(seen, image_BHWC, starts, size)

  # One after the other, so that the memory is that of one window.
  def add(sums, start):
    y, x = start
    view_BhwC = jax.lax.dynamic_slice(image_BHWC, (0, y, x, 0), (B, *size, C))
    total, count = sums
    found_BhwC = seen(view_BhwC)
    old = jax.lax.dynamic_slice(total, (0, y, x, 0), found_BhwC.shape)
    total = jax.lax.dynamic_update_slice(total, old + found_BhwC, (0, y, x, 0))
    old = jax.lax.dynamic_slice(count, (y, x), size)
    count = jax.lax.dynamic_update_slice(count, old + 1, (y, x))
    return (total, count), None

  view = jax.ShapeDtypeStruct((B, *size, C), image_BHWC.dtype)
  classes = jax.eval_shape(seen, view).shape[-1]
  sums = jnp.zeros((B, H, W, classes)), jnp.zeros((H, W))
  (total, count), _ = jax.lax.scan(add, sums, jnp.asarray(starts))
  return total / count[None, ..., None]


def _averaged_on_host(
  seen: Callable,
  image_BHWC: np.ndarray,
  starts: Sequence[tuple[int, int]],
  size: tuple[int, int],
) -> np.ndarray:
  """The mean of what is seen in each window, in NumPy."""
  total, count = None, np.zeros(image_BHWC.shape[1:3], np.float32)
  for y, x in starts:
    place = slice(y, y + size[0]), slice(x, x + size[1])
    found_BhwC = np.asarray(seen(image_BHWC[:, *place]))
    if total is None:
      shape = (*image_BHWC.shape[:3], found_BhwC.shape[-1])
      total = np.zeros(shape, np.float32)
    total[:, *place] += found_BhwC
    count[place] += 1
  return total / count[None, ..., None]
