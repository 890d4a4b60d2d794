"""curves.png: every metric of a run over its steps."""

import math
import pathlib
import re

import numpy as np

from common.fonts import covering
from train.workdir import metrics

# Series with at least this many points also get a smoothed line.
_SMOOTHED_FROM = 100
_COLUMNS = 4
# In inches: a panel, and the height of the first one, which is a whole row.
_WIDTH, _HEIGHT, _FIRST = 4.0, 3.0, 4.5
# What describes the updates, not what is learned.
_OF_UPDATES = re.compile(r".*_norm|.*learning_rate|dropped|loss_scale")
# The loss of training without label smoothing, see train/tasks.
UNSMOOTHED = "loss_unsmoothed"


def draw_curves(workdir: str) -> str | None:
  """Plots metrics.jsonl to WORKDIR/curves.png and returns its path.

  The loss has a wide panel on top. Below it are the metrics, then the norms and
  rates of the updates, then timings.

  Each metric has one panel, which training and all evaluations share:
  "train/loss" and "val/loss" are plotted in the panel "loss", and so is
  "train/loss_unsmoothed", the training loss without label smoothing, which is
  the one to compare with "val/loss". A series of 100 points or more is plotted
  faintly, with its centered moving average over 1/50 of the points on top; the
  legend states the number of points averaged.

  Returns:
    The path, or None if metrics.jsonl has no values, and nothing is written.

  Raises:
    UserError: metrics.jsonl is not a regular file.
  """
  panels = _panels(metrics.read_metrics(workdir))
  if not panels:
    return None
  import matplotlib

  matplotlib.use("Agg")
  import matplotlib.pyplot as plt

  fonts = covering(key for series in panels.values() for key in series)
  panels = {
    fonts.drawable(title): {
      fonts.drawable(key): points for key, points in series.items()
    }
    for title, series in panels.items()
  }
  path = str(pathlib.Path(workdir) / "curves.png")
  with matplotlib.rc_context({"font.family": list(fonts.family)}):
    figure = _figure(panels, plt)
    figure.savefig(path, dpi=100)
    plt.close(figure)
  return path


def _figure(panels: dict[str, dict[str, list]], plt):
  """A figure of {title: {key: [(step, value)]}}."""
  columns = max(1, min(_COLUMNS, len(panels) - 1))
  rows = math.ceil((len(panels) - 1) / columns)
  width = _WIDTH * max(2, columns)
  height = _FIRST + _HEIGHT * rows
  figure = plt.figure(figsize=(width, height))
  grid = figure.add_gridspec(
    1 + rows, columns, height_ratios=[_FIRST, *[_HEIGHT] * rows]
  )
  places = [grid[0, :]]
  places += [grid[1 + i // columns, i % columns] for i in range(rows * columns)]
  axes = [figure.add_subplot(place) for place in places[: len(panels)]]
  for ax, (title, series) in zip(axes, panels.items(), strict=True):
    for key, points in series.items():
      _draw(ax, key, *np.array(points, np.float64).T)
    larger = 3 * (ax is axes[0])
    ax.set_title(title, fontsize=9 + larger)
    ax.tick_params(labelsize=7 + larger)
    ax.grid(alpha=0.3)
    ax.legend(fontsize=6 + larger)
  for ax in [axes[0], *axes[1:][-columns:]]:
    ax.set_xlabel("step", fontsize=8)
  # Not tight_layout, which takes seconds if there are many panels.
  figure.subplots_adjust(
    left=0.6 / width,
    right=1 - 0.2 / width,
    bottom=0.5 / height,
    top=1 - 0.35 / height,
    wspace=0.25,
    hspace=0.4,
  )
  return figure


def moving_average(values: np.ndarray, window: int) -> np.ndarray:
  """Returns the centered mean over `window` (odd) values, fewer at the ends."""
  sums = np.cumsum(np.concatenate([[0.0], values]))
  at = np.arange(len(values))
  first = np.maximum(at - window // 2, 0)
  end = np.minimum(at + window // 2 + 1, len(values))
  return (sums[end] - sums[first]) / (end - first)


def _draw(ax, key, steps, values) -> None:
  # A single point is no line.
  frequent = key.startswith("train/") or "/" not in key
  marker = "" if frequent and len(values) > 1 else "o"
  style = {"marker": marker, "markersize": 3, "linewidth": 1}
  if len(values) < _SMOOTHED_FROM or not np.isfinite(values).all():
    ax.plot(steps, values, label=key, **style)
    return
  window = 2 * (len(values) // 100) + 1
  (line,) = ax.plot(steps, values, label=key, alpha=0.3, **style)
  ax.plot(
    steps,
    moving_average(values, window),
    label=f"{key}, mean of {window}",
    color=line.get_color(),
    linewidth=1.2,
  )


def _panels(rows: list[dict]) -> dict[str, dict[str, list]]:
  """Returns {metric: {key: [(step, value)]}} in the order of the panels.

  The shares of lost time, "badput_*", share one panel.
  """
  panels: dict[str, dict[str, list]] = {}
  for row in rows:
    for key, value in row.items():
      if key != "step":
        title = key.partition("/")[2] or key
        title = "badput" if title.startswith("badput_") else title
        title = "loss" if title == UNSMOOTHED else title
        series = panels.setdefault(title, {}).setdefault(key, [])
        series.append((row["step"], value))

  def order(title):
    timed = all("/" not in key for key in panels[title])
    of_updates = bool(_OF_UPDATES.fullmatch(title))
    return (timed, of_updates, title != "loss", not title.endswith("loss"))

  return {title: panels[title] for title in sorted(panels, key=order)}
