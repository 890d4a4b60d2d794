"""Figures of a report: plots as SVG text, and grids of images as PNG.

The same numbers give the same bytes on any machine, without dates and random
ids. Text remains text, so that the browser chooses fonts for every script; its
size is measured with a font that comes with Matplotlib.
"""

import io
import re
import unicodedata
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np

from common.fonts import DEFAULT, covering
from input_pipeline.reporting.page import number, visible

_BROWSERDEFAULTS = (
  "system-ui, 'Noto Sans', 'PingFang SC', 'Microsoft YaHei', "
  "'Noto Sans CJK SC', 'Noto Sans SC', sans-serif"
)
# The colours of Okabe and Ito, for colour-blind readers.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_WIDTH = 8.0  # inches
_LINE = 0.22  # inches for a bar or a label
_LONGEST_LABEL = 28
_MOST_BARS = 60


def bars(
  labels: Sequence[str],
  values: Sequence[float] | Mapping[str, Sequence[float]],
  title: str = "",
  axis: str = "",
) -> str:
  """A bar chart with a value beside each bar, as SVG text.

  Args:
    labels: of the bars; the first 60 are drawn.
    values: one for each label; or {series: values}, drawn side by side.
    title: above the chart.
    axis: the quantity and its unit.
  """
  series = values if isinstance(values, Mapping) else {"": values}
  shown = [_label(each) for each in labels[:_MOST_BARS]]
  rows = len(shown) * max(1, len(series) * 0.8)
  with _svg(_height(rows), shown) as (figure, axes, out):
    places = np.arange(len(shown))
    thick = 0.8 / max(1, len(series))
    for s, (name, numbers) in enumerate(series.items()):
      numbers = np.asarray(numbers[: len(shown)], float)
      drawn = axes.barh(
        places + (s - (len(series) - 1) / 2) * thick,
        np.nan_to_num(numbers),
        thick,
        color=_COLOURS[s % len(_COLOURS)],
        label=_label(name),
      )
      texts = [number(_whole(x)) for x in numbers]
      axes.bar_label(drawn, texts, padding=3, fontsize=8)
    axes.set_yticks(places, shown)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.margins(x=0.12)
    _finish(figure, axes, title, x=axis, named=len(series) > 1)
  return out[0]


def histogram(
  counts: Sequence[float] | Mapping[str, Sequence[float]],
  edges: Sequence[float],
  title: str = "",
  axis: str = "",
) -> str:
  """A histogram of given counts, as SVG text.

  Args:
    counts: one for each bin; or {series: counts}, drawn as shares, so that sets
      of different sizes can be compared.
    edges: of the bins, one more than there are bins.
    title: above the histogram.
    axis: the quantity and its unit.
  """
  return histograms([(title, counts, edges)], axis)


def histograms(
  panels: Sequence[tuple[str, Sequence | Mapping, Sequence[float]]],
  axis: str = "",
) -> str:
  """Histograms (title, counts, edges), three in a row; see `histogram`."""
  columns = min(3, len(panels))
  rows = -(-len(panels) // max(1, columns))
  tall = 2.6 if columns == 1 else 1.9
  with _svg(tall * rows, (), rows, max(1, columns)) as (figure, grid, out):
    grid = np.atleast_1d(grid).reshape(-1)
    for axes in grid[len(panels) :]:
      axes.set_axis_off()
    for axes, (title, counts, edges) in zip(grid, panels, strict=False):
      series = counts if isinstance(counts, Mapping) else {"": counts}
      for s, (name, values) in enumerate(series.items()):
        values = np.asarray(values, float)
        if len(series) > 1:
          values = values / max(values.sum(), 1)
        colour = _COLOURS[s % len(_COLOURS)]
        axes.stairs(
          values, edges, color=colour, label=_label(name), fill=not s, alpha=0.8
        )
      axes.locator_params(axis="x", nbins=5)
      axes.tick_params(labelsize=7)
      y = "share" if len(series) > 1 else "count"
      _finish(figure, axes, title, axis, y, len(series) > 1, 9)
    figure.tight_layout()
  return out[0]


def heatmap(
  matrix: Sequence[Sequence[float]],
  rows: Sequence[str],
  columns: Sequence[str],
  title: str = "",
  x: str = "",
  y: str = "",
) -> str:
  """A confusion or noise matrix with numbers in its cells, as SVG text.

  Args:
    matrix: [rows, columns].
    rows: the names of the rows.
    columns: the names of the columns.
    title: above the matrix.
    x: the label of the columns.
    y: the label of the rows.
  """
  matrix = np.asarray(matrix, float)
  left = [_label(each) for each in rows]
  below = [_label(each) for each in columns]
  cell = min(0.6, 6.0 / max(matrix.shape))
  size = max(matrix.shape[0] * cell, 1.2) + 0.1 * max(map(_width, below)) + 0.9
  with _svg(size, left) as (figure, axes, out):
    axes.pcolormesh(matrix, cmap="Blues", edgecolors="#8883", linewidth=0.4)
    axes.set_aspect("equal")
    axes.invert_yaxis()
    axes.set_yticks(np.arange(len(left)) + 0.5, left)
    axes.set_xticks(np.arange(len(below)) + 0.5, below, rotation=40, ha="right")
    if matrix.size <= 400:
      # Dark numbers on light cells, and light numbers on dark cells.
      middle = (np.nanmin(matrix) + np.nanmax(matrix)) / 2
      for (r, c), value in np.ndenumerate(matrix):
        axes.text(
          c + 0.5,
          r + 0.5,
          number(_whole(value)) if value >= 1000 else f"{value:.3g}",
          ha="center",
          va="center",
          fontsize=min(8, cell * 14),
          color="white" if value > middle else "black",
        )
    _finish(figure, axes, title, x, y)
    figure.tight_layout()
  return out[0]


def lines(
  series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
  title: str = "",
  x: str = "",
  y: str = "",
) -> str:
  """A plot of lines {name: (x, y)}, as SVG text."""
  with _svg(3.2) as (figure, axes, out):
    for s, (name, (across, up)) in enumerate(series.items()):
      colour = _COLOURS[s % len(_COLOURS)]
      axes.plot(across, up, color=colour, label=_label(name), linewidth=1.4)
    _finish(figure, axes, title, x, y, len(series) > 1)
    figure.tight_layout()
  return out[0]


def image_grid(
  images: Sequence[np.ndarray],
  captions: Sequence[str] = (),
  columns: int = 8,
  side: int = 96,
) -> bytes:
  """A grid of images with captions below them, as the bytes of a PNG.

  Args:
    images: each uint8 [h, w], [h, w, 1] or [h, w, 3]; of any sizes.
    captions: one for each image, of at most two lines; or none.
    columns: the number of images in a row.
    side: the side of each image in pixels; images are enlarged without
      smoothing.
  """
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  gap, text = 8, 30 if captions else 0
  columns = max(1, min(columns, len(images)))
  rows = max(1, -(-len(images) // columns))
  height, width = rows * (side + text + gap) + gap, columns * (side + gap) + gap
  sheet = np.full((height, width, 3), 255, np.uint8)
  corners = []
  for i, image in enumerate(images):
    small = _thumbnail(image, side)
    top = gap + i // columns * (side + text + gap)
    left = gap + i % columns * (side + gap)
    down, right = (side - small.shape[0]) // 2, (side - small.shape[1]) // 2
    place = (slice(top + down, top + down + small.shape[0]),)
    place += (slice(left + right, left + right + small.shape[1]),)
    sheet[place] = small
    corners.append((left, top + side))
  fonts = covering(captions)
  with _settings(list(fonts.family)):
    figure = Figure(figsize=(width / 100, height / 100), dpi=100)
    FigureCanvasAgg(figure)
    figure.figimage(sheet, origin="upper")
    for (left, below), caption in zip(corners, captions, strict=False):
      caption = fonts.drawable(visible(caption))
      lines = "\n".join(_cut(part, 17) for part in caption.split("\n"))
      place = ((left + side / 2) / width, 1 - (below + 2) / height)
      figure.text(*place, lines, fontsize=6.5, ha="center", va="top")
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
  return out.getvalue()


def _thumbnail(image: np.ndarray, side: int) -> np.ndarray:
  """uint8 [h, w, 3] whose longer side is `side`, by nearest pixels."""
  image = np.asarray(image)
  image = image[..., None] if image.ndim == 2 else image
  image = np.repeat(image, 3, -1) if image.shape[-1] == 1 else image[..., :3]
  scale = side / max(image.shape[:2])
  height, width = (max(1, round(n * scale)) for n in image.shape[:2])
  down = np.arange(height) * image.shape[0] // height
  right = np.arange(width) * image.shape[1] // width
  return image[down[:, None], right]


@contextmanager
def _settings(family: list[str]) -> Iterator[None]:
  import matplotlib

  settings = {
    "font.family": family,
    "font.size": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "tessera",
    "text.parse_math": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
  }
  with matplotlib.rc_context(), warnings.catch_warnings():
    matplotlib.rcdefaults()
    matplotlib.rcParams.update(settings)
    # The measuring font lacks characters that fonts of the browser have.
    warnings.filterwarnings("ignore", message="(?s).*Glyph .* missing")
    warnings.filterwarnings("ignore", message="(?s).*[Tt]ight layout not")
    yield


@contextmanager
def _svg(height: float, labels: Sequence[str] = (), rows=1, columns=1):
  """(figure, axes, a list that afterwards contains the SVG text)."""
  from matplotlib.backends.backend_svg import FigureCanvasSVG
  from matplotlib.figure import Figure

  out = []
  with _settings([DEFAULT]):
    figure = Figure(figsize=(_WIDTH, height))
    FigureCanvasSVG(figure)
    axes = figure.subplots(rows, columns)
    left = 0.3 + 0.085 * max(map(_width, labels), default=4)
    figure.subplots_adjust(
      left=left / _WIDTH,
      right=0.97,
      top=1 - 0.35 / height,
      bottom=0.5 / height,
    )
    yield figure, axes, out
    text = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(text, format="svg", transparent=True, metadata=nothing)
  svg = re.sub(
    rf"""(style="[^"<>]*)'{DEFAULT}'(, sans-serif)?""",
    rf"\1{_BROWSERDEFAULTS}",
    text.getvalue(),
  )
  out.append(svg[svg.index("<svg") :])


def _finish(
  figure, axes, title, x="", y="", named: bool = False, size: int = 10
) -> None:
  del figure
  axes.set_title(_cut(visible(title), 70), fontsize=size, loc="left")
  axes.set_xlabel(visible(x))
  axes.set_ylabel(visible(y))
  if named:
    axes.legend(fontsize=7, frameon=False)


def _height(rows: float) -> float:
  return 0.85 + _LINE * max(rows, 2)


def _whole(value: float) -> float | int:
  return int(value) if float(value).is_integer() else value


def _label(text: str) -> str:
  """A text as one short line; Matplotlib hides labels that begin with "_"."""
  text = visible(text).replace("\n", " ").replace("\t", " ")
  text = _cut(text, _LONGEST_LABEL)
  return f" {text}" if text.startswith("_") else text


def _width(text: str) -> int:
  """The width in columns; Chinese, Japanese and Korean characters take two."""
  return sum(1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def _cut(text: str, most: int) -> str:
  """Truncates the text to a number of columns, with an ellipsis at its end."""
  if _width(text) <= most:
    return text
  while text and _width(text) > most - 1:
    text = text[:-1]
  return f"{text}…"
