"""Pictures without their noise."""

from collections.abc import Callable

import numpy as np

from train.objectives import denoising as objective
from train.prediction import Context, Picture, Rendering
from train.prediction.parts import originals

# Pictures of more pixels on a side are computed in tiles.
_TILE, _MARGIN, _MULTIPLE = 512, 32, 8


def denoised(context: Context) -> Rendering:
  """Records {"record", "width", "height", "denoised"}, a Picture.

  A picture keeps its size. Those larger than a tile are computed in overlapping
  tiles; the settings of the run's evaluator tile, margin and multiple apply,
  and level, the standard deviation of the noise in 255ths, unless the option of
  that name is given.
  """
  settings = {**context.settings}
  tile = settings.get("tile") or _TILE
  margin = settings.get("margin", _MARGIN)
  multiple = settings.get("multiple", _MULTIPLE)
  level = context.options.get("level")
  level = settings.get("level") if level is None else level

  def apply(predict: Callable, image_HWC: np.ndarray) -> np.ndarray:
    return objective.tiled(predict, image_HWC, tile, margin, multiple)

  def render(pieces):
    for piece in pieces:
      for image_HWC, name in zip(piece.values, piece.records, strict=True):
        height, width = image_HWC.shape[:2]
        found = originals.of_range(image_HWC)
        yield {
          "record": name,
          "width": width,
          "height": height,
          "denoised": _picture(found),
        }

  extra = {} if level is None else {"level": level}
  return Rendering(
    render,
    whole=True,
    unmoved=True,
    pictures=True,
    apply=apply,
    extra=extra,
  )


def _picture(found: np.ndarray) -> Picture:
  return Picture(lambda: found)
