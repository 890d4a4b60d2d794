"""Pictures as an autoencoder gives them back."""

import numpy as np

from train.prediction import Context, Picture, Rendering
from train.prediction.parts import originals


def reconstructions(context: Context) -> Rendering:
  """Records {"record", "reconstruction"}, a Picture of the model's size.

  Raises:
    ValueError: the prediction is no picture.
  """
  if len(context.abstract.shape) != 4:
    raise ValueError("reconstructions are not pictures")

  def render(pieces):
    for piece in pieces:
      for image_HWC, name in zip(piece.values, piece.records, strict=True):
        found = originals.of_range(image_HWC)
        yield {"record": name, "reconstruction": _picture(found)}

  return Rendering(render, pictures=True)


def _picture(found: np.ndarray) -> Picture:
  return Picture(lambda: found)
