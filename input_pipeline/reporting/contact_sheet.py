"""A contact sheet: pairs of images before and after the ops, as one PNG."""

import io
import math
import textwrap
from collections.abc import Sequence

import numpy as np

from common.fonts import covering

# Inches; images are fitted into squares.
_SIDE = 1.3
_CAPTION = 0.3
_GAP = 0.25
# Wide enough for four pairs on a screen.
_ACROSS = 4
# The least number of characters of the title per inch.
_DENSE = 12


def contact_sheet(
  pairs: Sequence[tuple[np.ndarray, np.ndarray]],
  captions: Sequence[str],
  title: str = "",
) -> bytes:
  """The bytes of a PNG of the pairs, each below its caption.

  Args:
    pairs: of uint8 images [h, w, 1, 3 or 4] of any sizes; at least one pair.
    captions: a line for each pair.
    title: a line above the pairs.
  """
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  across = min(_ACROSS, len(pairs))
  down = math.ceil(len(pairs) / across)
  cell_w, cell_h = 2 * _SIDE + _GAP, _SIDE + _CAPTION
  width = across * cell_w + _GAP
  lines = textwrap.wrap(title, int(_DENSE * (width - _GAP))) or [""]
  head = 0.2 * len(lines) + _CAPTION
  height = head + down * cell_h
  figure = Figure(figsize=(width, height), dpi=100)
  FigureCanvasAgg(figure)
  axes = figure.add_axes((0, 0, 1, 1))
  axes.set_xlim(0, width)
  axes.set_ylim(height, 0)  # The y axis points down, as in images.
  axes.axis("off")
  fonts = covering([title, *captions])
  family = list(fonts.family)
  style = dict(fontsize=7, parse_math=False, va="bottom", family=family)
  at_top = {**style, "fontsize": 9, "va": "top"}
  axes.text(_GAP, 0.1, fonts.drawable("\n".join(lines)), **at_top)
  for i, (pair, caption) in enumerate(zip(pairs, captions, strict=True)):
    left = _GAP + (i % across) * cell_w
    top = head + (i // across) * cell_h
    axes.text(left, top - 0.03, fonts.drawable(caption), **style)
    for side, image in enumerate(pair):
      _draw(axes, image, left + side * (_SIDE + 0.05), top)
  file = io.BytesIO()
  # Without the version of Matplotlib, so that equal sheets have equal bytes.
  figure.savefig(file, format="png", metadata={"Software": None})
  return file.getvalue()


def _draw(axes, image: np.ndarray, left: float, top: float) -> None:
  """Draws an image as large as its square permits, keeping its proportions."""
  height, width = image.shape[:2]
  scale = _SIDE / max(height, width)
  x = left + (_SIDE - width * scale) / 2
  y = top + (_SIDE - height * scale) / 2
  if image.shape[2] == 1:
    image = np.repeat(image, 3, axis=2)
  axes.imshow(
    image,
    extent=(x, x + width * scale, y + height * scale, y),
    # Small images show their pixels; large ones are averaged.
    interpolation="nearest" if scale * 100 >= 1 else "antialiased",
    aspect="auto",
    zorder=1,
  )
