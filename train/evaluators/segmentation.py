"""Segmentation: mean intersection over union, and pixel accuracy."""

import pathlib

import jax
import numpy as np

from train import types
from train.evaluators.classification import confusion_image
from train.objectives import metrics


def segmentation(context: types.EvalContext) -> types.Evaluator:
  """Measures miou, pixel_accuracy and loss over the pixels of a split.

  The IoU of a class is that of its pixels in the whole split, from one
  confusion matrix (rows: true, columns: predicted), which is written to
  WORKDIR/<key>_confusion.csv; miou is the mean over the classes that occur or
  are predicted. Pixels with a value that is no class are not counted.

  Raises:
    ValueError: the task does not predict logits, or the data has no classes.
  """
  if "logits" not in context.task.predict or context.num_classes is None:
    raise ValueError(
      "segmentation needs predicted logits and a known number of classes, as in"
      " masks:DIR?classes=11"
    )
  num_classes = context.num_classes

  @jax.jit
  def count(variables, batch, at):
    loss, _ = context.task.losses["loss"](variables, batch, at)
    logits_BHWC = context.task.predict["logits"](variables, batch, at.rng)
    label_BHW = batch["segmentation"]
    mask_BHW = batch["mask"][:, None, None] * (label_BHW >= 0)
    return loss, metrics.confusion_matrix(
      label_BHW, logits_BHWC.argmax(-1), num_classes, mask_BHW
    )

  def evaluate(variables, step):
    # Sums stay on the host in float64: counts are exact beyond 2^24.
    at = types.Context(context.rng, np.int32(step), train=False)
    total, confusion_CC = np.zeros(2), np.zeros((num_classes, num_classes))
    for batch in context.batches():
      loss, counts = context.fetch(count(variables, batch, at))
      confusion_CC += counts
      total += np.asarray([loss.total, loss.weight], float)
    if context.workdir and jax.process_index() == 0:
      path = pathlib.Path(context.workdir) / f"{context.key}_confusion.csv"
      np.savetxt(path, confusion_CC, fmt="%d", delimiter=",")
    image_HWC = confusion_image(confusion_CC)
    context.show(step, f"{context.key}/confusion", "image", image_HWC)
    return {
      "loss": float(total[0] / max(total[1], 1.0)),
      "miou": mean_iou(confusion_CC),
      "pixel_accuracy": float(
        np.trace(confusion_CC) / max(confusion_CC.sum(), 1.0)
      ),
    }

  names = ("loss", "miou", "pixel_accuracy")
  return types.Measuring(evaluate, lambda variables: names)


def mean_iou(confusion_CC: np.ndarray) -> float:
  """The mean over classes of TP / (TP + FP + FN); 0 without any pixel.

  Classes that neither occur nor are predicted do not count.
  """
  hits_C = np.diag(confusion_CC)
  union_C = confusion_CC.sum(0) + confusion_CC.sum(1) - hits_C
  if not union_C.any():
    return 0.0
  return float((hits_C[union_C > 0] / union_C[union_C > 0]).mean())
