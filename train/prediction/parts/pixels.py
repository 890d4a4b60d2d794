"""The class of each pixel of a picture."""

from collections.abc import Callable

import numpy as np

from train.objectives import segmentation as objective
from train.prediction import Context, Original, Picture, Rendering
from train.prediction.parts import drawing, places


def of_pixels(context: Context) -> Rendering:
  """Records {"record", "width", "height", "classes", "mask", "overlay"}.

  The logits [B, H, W, C] are mapped to the original picture, upright, whose
  size is "width" and "height". A class is {"label", "value", "share"}, with
  the share of the pixels, in descending order. "mask" is a Picture whose values
  are the classes from 0 on, and 255 where the model saw no pixel; "overlay"
  shows it on the original.

  The options window, overlap and flips, and else those settings of the run's
  evaluator, give the mean probabilities of several views of a picture. With a
  window, pictures that the operations do not resize keep their size.
  """
  views = {
    "window": context.chosen("window", ()),
    "overlap": context.chosen("overlap", 0.5),
    "flips": context.chosen("flips", False),
  }
  picture = context.picture() or "image"

  def render(pieces):
    for piece in pieces:
      for i, name in enumerate(piece.records):
        original = piece.original(i)
        place = np.eye(2, 3) if piece.places is None else piece.places[i]
        found = places.classes(piece.values[i], place, original.size)
        width, height = original.size
        yield {
          "record": name,
          "width": width,
          "height": height,
          "classes": _shares(context, found),
          "mask": _mask(found),
          "overlay": _overlay(original, found),
        }

  def apply(predict: Callable, image_HWC: np.ndarray) -> np.ndarray:
    found = objective.averaged_probabilities(predict, image_HWC[None], **views)
    return np.asarray(found)[0]

  made = Rendering(render, placed=True, pictures=True)
  if views["window"]:
    return made._replace(whole=True, apply=apply)
  if views["flips"]:
    return made._replace(
      views=lambda predict: objective.in_views(predict, picture, **views)
    )
  return made


def _mask(found: np.ndarray) -> Picture:
  return Picture(lambda: found)


def _overlay(original: Original, found: np.ndarray) -> Picture:
  return Picture(lambda: drawing.classes(original.pixels(), found), True)


def _shares(context: Context, found: np.ndarray) -> list[dict]:
  numbers, counts = np.unique(found, return_counts=True)
  most = context.abstract.shape[-1]
  return [
    {
      "label": context.class_name(int(numbers[i])),
      "value": int(numbers[i]),
      "share": round(float(counts[i]) / found.size, 6),
    }
    for i in np.argsort(-counts, kind="stable")
    if numbers[i] < most and numbers[i] != places.OUTSIDE
  ]
