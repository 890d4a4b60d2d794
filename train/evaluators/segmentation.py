"""Segmentation: mean intersection over union, and pixel accuracy."""

import pathlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from train import types
from train.evaluators.classification import confusion_image, write_confusion
from train.objectives import metrics
from train.objectives import segmentation as objective

# How much of a picture is covered by the colours of its classes.
_COVER = 0.6


def segmentation(
  context: types.EvalContext,
  *,
  classes: Sequence[str] = (),
  window: Sequence[int] = (),
  overlap: float = 0.5,
  flips: bool = False,
  pictures: int = 0,
) -> types.Evaluator:
  """Measures miou, pixel_accuracy and loss over the pixels of a split.

  The IoU of a class is that of its pixels in the whole split, from one
  confusion matrix (rows: true, columns: predicted), which is written to
  WORKDIR/<key>_confusion.csv, with the names of the classes if the data has
  names; miou is the mean over the classes that occur or are predicted. Pixels
  with a value that is no class are not counted.

  With `window` or `flips` a pixel's class is that of the largest mean
  probability over all windows and mirror images that contain it; the loss is
  that of whole images all the same.

  Args:
    context: of the run.
    classes: the names of the classes that miou is the mean over, in which the
      pixels of other classes do not count; () takes all.
    window: (height, width) of windows that slide over the image; () takes
      images whole.
    overlap: the least share of a window that the next one covers too.
    flips: whether images are also seen mirrored from left to right.
    pictures: number of images to draw, each beside its true and its predicted
      classes, in WORKDIR/samples/<key>_<step>.png; 0 draws none.

  Raises:
    ValueError: the task does not predict logits, the data has no classes, or an
      argument is out of its range.
  """
  _check(context, classes, window, overlap)
  num_classes = context.num_classes
  chosen = [context.class_names.index(name) for name in classes]

  predict = context.task.predict["logits"]
  if window or flips:
    predict = objective.in_views(
      predict, window=window, overlap=overlap, flips=flips
    )

  @jax.jit
  def count(variables, batch, at):
    loss, _ = context.task.losses["loss"](variables, batch, at)
    guess_BHW = predict(variables, batch, at.rng).argmax(-1)
    label_BHW = batch["segmentation"]
    mask_BHW = batch["mask"][:, None, None] * (label_BHW >= 0)
    found = metrics.confusion_matrix(
      label_BHW, guess_BHW, num_classes, mask_BHW
    )
    return loss, found, guess_BHW.astype(jnp.int32)

  def evaluate(variables, step):
    # Sums stay on the host in float64: counts are exact beyond 2^24.
    at = types.Context(context.rng, np.int32(step), train=False)
    total, confusion_CC = np.zeros(2), np.zeros((num_classes, num_classes))
    rows: list = []
    for batch in context.batches():
      loss, counts, guess_BHW = count(variables, batch, at)
      loss, counts = context.fetch((loss, counts))
      confusion_CC += counts
      total += np.asarray([loss.total, loss.weight], float)
      if len(rows) < pictures:
        given = (batch["image"], batch["segmentation"], guess_BHW)
        *parts, mask_B = context.fetch((*given, batch["mask"]))
        rows += [[x[i] for x in parts] for i in np.flatnonzero(mask_B)]
    if context.workdir and jax.process_index() == 0:
      path = pathlib.Path(context.workdir) / f"{context.key}_confusion.csv"
      write_confusion(path, confusion_CC, context.class_names)
    image_HWC = confusion_image(confusion_CC)
    context.show(step, f"{context.key}/confusion", "image", image_HWC)
    if pictures:
      _draw(context, rows[:pictures], step)
    return {
      "loss": float(total[0] / max(total[1], 1.0)),
      "miou": mean_iou(confusion_CC, chosen),
      "pixel_accuracy": float(
        np.trace(confusion_CC) / max(confusion_CC.sum(), 1.0)
      ),
    }

  names = ("loss", "miou", "pixel_accuracy")
  return types.Measuring(evaluate, lambda variables: names)


def _check(context, classes, window, overlap) -> None:
  """Raises ValueError if the evaluator cannot be built."""
  if "logits" not in context.task.predict or context.num_classes is None:
    raise ValueError(
      "segmentation needs predicted logits and a known number of classes, as in"
      " masks:DIR?classes=11"
    )
  known = context.class_names
  wrong = [name for name in classes if name not in known]
  if wrong:
    raise ValueError(
      f"classes: {wrong[0]!r} is no class of the data"
      f" ({', '.join(known) or 'whose classes have no names'})"
    )
  objective.check_window(window, overlap)


def mean_iou(confusion_CC: np.ndarray, chosen: Sequence[int] = ()) -> float:
  """The mean over classes of TP / (TP + FP + FN); 0 without any pixel.

  Classes that neither occur nor are predicted do not count. `chosen` are the
  numbers of the classes to average over, and only their pixels count; () takes
  all.
  """
  if chosen:
    others = np.setdiff1d(np.arange(len(confusion_CC)), chosen)
    confusion_CC = np.array(confusion_CC)
    confusion_CC[others] = 0
  hits_C = np.diag(confusion_CC)
  union_C = confusion_CC.sum(0) + confusion_CC.sum(1) - hits_C
  if chosen:
    hits_C, union_C = hits_C[list(chosen)], union_C[list(chosen)]
  if not union_C.any():
    return 0.0
  return float((hits_C[union_C > 0] / union_C[union_C > 0]).mean())


def overlay(image_HWC: np.ndarray, classes_HW: np.ndarray) -> np.ndarray:
  """A picture under the colours of its classes, uint8 [H, W, 3].

  The image may have any range of values, which is stretched. Pixels of negative
  classes and of 255 keep their own colour.
  """
  image_HWC = np.asarray(image_HWC, np.float64)
  low, high = image_HWC.min(), image_HWC.max()
  image_HWC = 255 * (image_HWC - low) / max(high - low, 1e-9)
  if image_HWC.shape[-1] != 3:
    image_HWC = np.repeat(image_HWC[..., :1], 3, -1)
  kinds_HW = np.asarray(classes_HW).astype(int)
  hidden_HW1 = ((kinds_HW < 0) | (kinds_HW == 255))[..., None]
  cover_HW1 = np.where(hidden_HW1, 0.0, _COVER)
  colour_HWC = _colours(kinds_HW)
  return np.rint(image_HWC * (1 - cover_HW1) + colour_HWC * cover_HW1).astype(
    np.uint8
  )


def _colours(kinds_HW: np.ndarray) -> np.ndarray:
  """A colour for each class: its bits, dealt to red, green and blue in turn.

  The first class is black; neighbours differ in their highest bits, as in the
  palette of Pascal VOC.
  """
  found_HW3 = np.zeros((*kinds_HW.shape, 3), int)
  for bit in range(8):
    for channel in range(3):
      value = (kinds_HW >> (3 * bit + channel)) & 1
      found_HW3[..., channel] |= value << (7 - bit)
  return found_HW3


def _draw(context, rows, step: int) -> None:
  """Writes a picture with a row for each (image, true, predicted)."""
  image_HWC = np.concatenate(
    [
      np.concatenate(
        [
          overlay(image, np.full(image.shape[:2], -1)),
          overlay(image, np.where(true < context.num_classes, true, -1)),
          overlay(image, guess),
        ],
        axis=1,
      )
      for image, true, guess in rows
    ]
  )
  if context.workdir is not None and jax.process_index() == 0:
    import matplotlib.image

    folder = pathlib.Path(context.workdir) / "samples"
    folder.mkdir(exist_ok=True)
    path = folder / f"{context.key}_{step:07d}.png"
    matplotlib.image.imsave(path, image_HWC)
    context.say(f"samples  {path}")
  context.show(step, f"{context.key}/overlays", "image", image_HWC)
