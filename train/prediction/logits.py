"""Classes of whole examples, with probabilities, or of pixels."""

import numpy as np

from train.objectives import mirroring
from train.prediction import Context, Renderer, Rendering
from train.prediction.parts import pixels


def logits(context: Context) -> Renderer | Rendering:
  """Records {"record", "label", "probability"} of logits [B, C].

  With `top` K there are also "label_2", "probability_2" and so on, in
  descending order; among equal ones the first class comes first. Where the
  labels are several independent yes-or-no answers ("y" [O] instead of a
  "label"), there is "probability_1" and so on, of each answer being yes. For
  logits [B, H, W, C] of the pixels of a picture see parts/pixels.py. The option
  flips, and else that setting of the run's evaluator, gives the mean
  probabilities of a picture and its mirror image.

  Raises:
    ValueError: the logits are not those of one class for each example.
  """
  shape = context.abstract.shape
  height_width = ("height", "width")
  if len(shape) == 4 and any(
    leaf.axes[:2] == height_width for leaf in context.spec.values()
  ):
    return pixels.of_pixels(context)
  if len(shape) != 2:
    raise ValueError(f"logits of the shape {list(shape)} are not of classes")
  independent = "label" not in context.spec
  picture = context.picture()

  def render(pieces):
    for piece in pieces:
      for record, logits_C in zip(piece.records, piece.values, strict=True):
        found = {"record": record}
        if independent:
          for i, p in enumerate(_sigmoid(logits_C), 1):
            found[f"probability_{i}"] = round(float(p), 6)
        else:
          found |= _classes(context, _softmax(logits_C))
        yield found

  if picture and not independent and context.chosen("flips", False):
    return Rendering(
      render, views=lambda predict: mirroring.mirrored(predict, picture)
    )
  return render


def _classes(context: Context, p_C: np.ndarray) -> dict:
  best = np.argsort(-p_C, kind="stable")[: context.top]
  found = {}
  for place, number in enumerate(best, 1):
    end = f"_{place}" if place > 1 else ""
    found[f"label{end}"] = context.class_name(int(number))
    found[f"probability{end}"] = round(float(p_C[number]), 6)
  return found


def _softmax(x_C: np.ndarray) -> np.ndarray:
  x_C = x_C.astype(np.float64)
  e_C = np.exp(x_C - x_C.max())
  return e_C / e_C.sum()


def _sigmoid(x_O: np.ndarray) -> np.ndarray:
  return np.exp(-np.logaddexp(0.0, -x_O.astype(np.float64)))
