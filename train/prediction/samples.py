"""Pictures drawn at random from what a run has learned."""

import numpy as np

from train.prediction import Context, Picture, Rendering
from train.prediction.parts import originals

# See train/prediction/__init__.py.
DRAWN = True


def samples(context: Context) -> Rendering:
  """Records {"record", "picture"}, with the "label" and "prompt" if there are.

  Raises:
    ValueError: the prediction is no picture.
  """
  if len(context.abstract.shape) != 4:
    raise ValueError("samples are not pictures")

  def render(pieces):
    for piece in pieces:
      shown = piece.texts()
      rows = zip(piece.records, piece.values, strict=True)
      for i, (name, image_HWC) in enumerate(rows):
        named = {key: values[i] for key, values in shown.items()}
        if "label" in named:
          named["label"] = context.class_name(named["label"])
        found = originals.of_range(image_HWC)
        yield {"record": name, **named, "picture": _picture(found)}

  return Rendering(render, pictures=True)


def _picture(found: np.ndarray) -> Picture:
  return Picture(lambda: found)
