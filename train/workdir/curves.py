"""curves.png: every metric of a run over its steps."""

import math
import pathlib

import numpy as np

from train.workdir import metrics

# Series of at least so many points also get a smoothed line.
_SMOOTHED_FROM = 100
_COLUMNS = 4


def draw_curves(workdir: str) -> str | None:
  """Draws metrics.jsonl into WORKDIR/curves.png and returns its path.

  Each metric has one panel, which training and all evaluations share:
  "train/loss" and "val/loss" are drawn in the panel "loss". A series of 100
  points or more is drawn faintly, with its centred moving average over 1/50 of
  the points on top; the legend states the number of points averaged.

  Returns:
    None where metrics.jsonl has no figures; nothing is written then.

  Raises:
    UserError: metrics.jsonl is not a regular file.
  """
  panels = _panels(metrics.read_metrics(workdir))
  if not panels:
    return None
  import matplotlib

  matplotlib.use("Agg")
  import matplotlib.pyplot as plt

  columns = min(_COLUMNS, len(panels))
  rows = math.ceil(len(panels) / columns)
  figure, axes = plt.subplots(
    rows, columns, figsize=(4 * columns, 3 * rows), squeeze=False
  )
  for ax in axes.flat[len(panels) :]:
    ax.set_axis_off()
  for ax, (title, series) in zip(axes.flat, panels.items(), strict=False):
    for key, points in series.items():
      _draw(ax, key, *np.array(points, np.float64).T)
    ax.set_title(title, fontsize=9)
    ax.tick_params(labelsize=7)
    ax.grid(alpha=0.3)
    ax.legend(fontsize=6)
  for ax in axes[-1]:
    ax.set_xlabel("step", fontsize=8)
  # By hand: tight_layout takes seconds where there are many panels.
  figure.subplots_adjust(
    left=0.6 / (4 * columns),
    right=1 - 0.2 / (4 * columns),
    bottom=0.5 / (3 * rows),
    top=1 - 0.35 / (3 * rows),
    wspace=0.25,
    hspace=0.4,
  )
  path = str(pathlib.Path(workdir) / "curves.png")
  figure.savefig(path, dpi=100)
  plt.close(figure)
  return path


def moving_average(values: np.ndarray, window: int) -> np.ndarray:
  """The centred mean over `window` values (odd), fewer at both ends."""
  sums = np.cumsum(np.concatenate([[0.0], values]))
  at = np.arange(len(values))
  first = np.maximum(at - window // 2, 0)
  end = np.minimum(at + window // 2 + 1, len(values))
  return (sums[end] - sums[first]) / (end - first)


def _draw(ax, key, steps, values) -> None:
  marker = "" if key.startswith("train/") or "/" not in key else "o"
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
  """{metric: {key: [(step, value)]}}, losses first, the clock's figures last.

  The shares of lost time, "badput_*", have one panel.
  """
  panels: dict[str, dict[str, list]] = {}
  for row in rows:
    for key, value in row.items():
      if key != "step":
        title = key.partition("/")[2] or key
        title = "badput" if title.startswith("badput_") else title
        series = panels.setdefault(title, {}).setdefault(key, [])
        series.append((row["step"], value))

  def order(title):
    timed = all("/" not in key for key in panels[title])
    return (timed, not title.endswith("loss"))

  return {title: panels[title] for title in sorted(panels, key=order)}
