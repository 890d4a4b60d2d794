"""A contact sheet: pairs of images before and after the ops, as one PNG."""

import io
import math
import textwrap
from collections.abc import Sequence

import numpy as np

from common.fonts import covering
from input_pipeline.reporting import marks as marks_lib
from input_pipeline.reporting.marks import Marks

# Inches; images are fitted into squares.
_SIDE = 1.3
_CAPTION = 0.3
_GAP = 0.25
# Wide enough for four pairs on a screen.
_ACROSS = 4
# With boxes or masks, which need larger pictures.
_MARKED_SIDE, _MARKED_ACROSS = 3.6, 2
# The least number of characters of the title per inch.
_DENSE = 12


def contact_sheet(
  pairs: Sequence[tuple[np.ndarray, np.ndarray]],
  captions: Sequence[str],
  title: str = "",
  marks: Sequence[tuple[Marks | None, Marks | None]] = (),
) -> bytes:
  """The bytes of a PNG of the pairs, each below its caption.

  Args:
    pairs: of uint8 images [h, w, 1, 3 or 4] of any sizes; at least one pair.
    captions: a line for each pair.
    title: a line above the pairs.
    marks: what to draw over the two images of each pair, which are then larger;
      () draws nothing.
  """
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  marked = any(one or other for one, other in marks)
  big = _MARKED_SIDE if marked else _SIDE
  across = min(_MARKED_ACROSS if marked else _ACROSS, len(pairs))
  down = math.ceil(len(pairs) / across)
  cell_w, cell_h = 2 * big + _GAP, big + _CAPTION
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
  of_boxes = [t for pair in marks for m in pair if m for t in m.texts]
  fonts = covering([title, *captions, *of_boxes])
  family = list(fonts.family)
  style = dict(fontsize=7, parse_math=False, va="bottom", family=family)
  at_top = {**style, "fontsize": 9, "va": "top"}
  axes.text(_GAP, 0.1, fonts.drawable("\n".join(lines)), **at_top)
  for i, (pair, caption) in enumerate(zip(pairs, captions, strict=True)):
    left = _GAP + (i % across) * cell_w
    top = head + (i // across) * cell_h
    axes.text(left, top - 0.03, fonts.drawable(caption), **style)
    for side, image in enumerate(pair):
      drawn = marks[i][side] if marked else None
      x = left + side * (big + 0.05)
      scale, *corner = _draw(axes, marks_lib.tinted(image, drawn), x, top, big)
      if drawn:
        _draw_boxes(axes, drawn, scale, corner, fonts, family)
  file = io.BytesIO()
  # Without the version of Matplotlib, so that equal sheets have equal bytes.
  figure.savefig(file, format="png", metadata={"Software": None})
  return file.getvalue()


def _draw(
  axes, image: np.ndarray, left: float, top: float, side: float
) -> tuple[float, float, float]:
  """Draws an image as large as its square permits, keeping its proportions.

  Returns:
    inches in a pixel, and the place of the upper left corner.
  """
  height, width = image.shape[:2]
  scale = side / max(height, width)
  x = left + (side - width * scale) / 2
  y = top + (side - height * scale) / 2
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
  return scale, x, y


def _draw_boxes(axes, marks: Marks, scale: float, corner, fonts, family):
  """Draws the boxes of a picture, each with the name of its class."""
  from matplotlib.patches import Rectangle

  left, top = corner
  for box, number, text in zip(
    marks.boxes, marks.classes, marks.texts, strict=True
  ):
    x0, y0, x1, y1 = (float(n) * scale for n in box)
    colour = marks_lib.colour(int(number))
    place = (left + x0, top + y0)
    axes.add_patch(
      Rectangle(
        place, x1 - x0, y1 - y0, fill=False, color=colour, lw=1.2, zorder=2
      )
    )
    axes.text(
      *place,
      fonts.drawable(text),
      fontsize=6,
      family=family,
      parse_math=False,
      va="top",
      color="black",
      bbox=dict(facecolor=colour, edgecolor="none", pad=0.5, alpha=0.8),
      zorder=3,
    )
