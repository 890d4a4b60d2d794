"""Pictures drawn at random from what a run has learned."""

import numpy as np

from train.prediction import Context, Picture, Rendering
from train.prediction.parts import originals

# See train/prediction/__init__.py.
DRAWN = True


def samples(context: Context) -> Rendering:
  """Records {"record", "picture"}, and "label" if a class was asked for.

  Raises:
    ValueError: the prediction is no picture.
  """
  if len(context.abstract.shape) != 4:
    raise ValueError("samples are not pictures")

  def render(pieces):
    for piece in pieces:
      labels = piece.texts().get("label", [None] * len(piece.records))
      rows = zip(piece.records, labels, piece.values, strict=True)
      for name, label, image_HWC in rows:
        named = {} if label is None else {"label": context.class_name(label)}
        found = originals.of_range(image_HWC)
        yield {"record": name, **named, "picture": _picture(found)}

  return Rendering(render, pictures=True)


def _picture(found: np.ndarray) -> Picture:
  return Picture(lambda: found)
