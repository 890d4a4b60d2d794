"""Classification: accuracy, top-5 accuracy, confusion matrix and macro F1."""

import csv
import pathlib

import jax
import numpy as np

from train import types
from train.objectives import metrics, mirroring


def classification(
  context: types.EvalContext, *, flips: bool = False
) -> types.Evaluator:
  """Measures accuracy, top5_accuracy (with over five classes), macro_f1, loss.

  The confusion matrix (rows: true, columns: predicted) is written to
  WORKDIR/<key>_confusion.csv, with the names of the classes as a header and as
  the first column if the data has names. It goes to config.writers as the image
  "<key>/confusion", in which white is all examples of a row.

  Args:
    context: of the run.
    flips: whether images are also seen mirrored from left to right; the class
      is that of the largest mean probability. The loss is that of the images
      as they are.

  Raises:
    ValueError: the task does not predict logits, or the data has no classes.
  """
  if "logits" not in context.task.predict or context.num_classes is None:
    raise ValueError("classification needs labelled data and predicted logits")
  num_classes = context.num_classes
  predict = context.task.predict["logits"]
  if flips:
    predict = mirroring.mirrored(predict)

  @jax.jit
  def count(variables, batch, at):
    loss, _ = context.task.losses["loss"](variables, batch, at)
    logits_BC = predict(variables, batch, at.rng)
    label_B, mask_B = batch["label"], batch["mask"]
    found = {"loss": loss}
    for name, k in (("accuracy", 1), ("top5_accuracy", 5)):
      if k < num_classes:
        correct_B = metrics.top_k_correct(logits_BC, label_B, k)
        found[name] = types.mean_of(correct_B, mask_B)
    confusion_CC = metrics.confusion_matrix(
      label_B, logits_BC.argmax(-1), num_classes, mask_B
    )
    return found, confusion_CC

  def evaluate(variables, step):
    # Sums stay on the host in float64: counts are exact beyond 2^24.
    at = types.Context(context.rng, np.int32(step), train=False)
    sums, confusion_CC = {}, np.zeros((num_classes, num_classes))
    for batch in context.batches():
      found, counts = context.fetch(count(variables, batch, at))
      confusion_CC += counts
      for name, m in found.items():
        sums[name] = sums.get(name, 0) + np.asarray([m.total, m.weight], float)
    if context.workdir and jax.process_index() == 0:
      path = pathlib.Path(context.workdir) / f"{context.key}_confusion.csv"
      write_confusion(path, confusion_CC, context.class_names)
    image_HWC = confusion_image(confusion_CC)
    context.show(step, f"{context.key}/confusion", "image", image_HWC)
    scalars = {n: float(total / weight) for n, (total, weight) in sums.items()}
    return {**scalars, "macro_f1": float(metrics.macro_f1(confusion_CC))}

  names = ("loss", "accuracy", "top5_accuracy", "macro_f1")
  known = [n for n in names if n != "top5_accuracy" or num_classes > 5]
  return types.Measuring(evaluate, lambda variables: known)


def write_confusion(
  path: pathlib.Path, confusion_CC: np.ndarray, names
) -> None:
  """Writes the counts, with the names of the classes if they are known."""
  if len(names) != len(confusion_CC):
    np.savetxt(path, confusion_CC, fmt="%d", delimiter=",")
    return
  with open(path, "w", encoding="utf-8", newline="") as file:
    rows = csv.writer(file, lineterminator="\n")
    rows.writerow(["", *names])
    for name, counts in zip(names, confusion_CC, strict=True):
      rows.writerow([name, *map(int, counts)])


def confusion_image(confusion_CC: np.ndarray) -> np.ndarray:
  """Returns a gray image, uint8 [H, W, 3], of each row's counts over its sum.

  The side of a cell is 256 // C pixels, but at least 1.
  """
  rows_C1 = np.maximum(confusion_CC.sum(1, keepdims=True), 1)
  shares_CC = np.rint(255 * confusion_CC / rows_C1).astype(np.uint8)
  side = max(1, 256 // len(confusion_CC))
  cells_HW = np.kron(shares_CC, np.ones((side, side), np.uint8))
  return np.repeat(cells_HW[..., None], 3, -1)
