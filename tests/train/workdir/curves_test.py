"""curves.png: a panel for each metric, and the smoothing that it states."""

import numpy as np
import pytest

from train.workdir import curves, metrics


def rows(workdir, *found):
  """Writes (step, scalars) into metrics.jsonl."""
  made = metrics.files(str(workdir))
  made.start(None)
  for step, scalars in found:
    made.write(step, scalars)
  made.close()


@pytest.fixture
def drawn(monkeypatch):
  """{label: (xs, ys, axes)} of all that is plotted."""
  from matplotlib import axes

  found = {}
  plot = axes.Axes.plot

  def spy(self, xs, ys, **style):
    found[style["label"]] = list(xs), list(ys), self
    return plot(self, xs, ys, **style)

  monkeypatch.setattr(axes.Axes, "plot", spy)
  return found


def test_curves_show_each_metric_over_steps(tmp_path, drawn):
  from matplotlib import image

  rows(
    tmp_path,
    *(
      (k, {"train/loss": 1 / k, "train/grad_norm": 9.0, "goodput": k / 3})
      for k in (1, 2, 3)
    ),
    (3, {"val/loss": 0.5, "val/accuracy": 0.75}),
    (3, {"train/loss_unsmoothed": 0.25}),
    (3, {"badput_save": 0.1, "badput_lost": 0.2}),
  )
  path = curves.draw_curves(str(tmp_path))
  assert path == str(tmp_path / "curves.png")
  assert {k: v[:2] for k, v in drawn.items()} == {
    "train/loss": ([1, 2, 3], [1, 1 / 2, 1 / 3]),
    "val/loss": ([3], [0.5]),
    "train/loss_unsmoothed": ([3], [0.25]),
    "train/grad_norm": ([1, 2, 3], [9, 9, 9]),
    "val/accuracy": ([3], [0.75]),
    "goodput": ([1, 2, 3], [1 / 3, 2 / 3, 1]),
    "badput_save": ([3], [0.1]),
    "badput_lost": ([3], [0.2]),
  }
  # Training and evaluation share the panel of a metric.
  assert {k: v[2].get_title() for k, v in drawn.items()} == {
    "train/loss": "loss",
    "val/loss": "loss",
    "train/loss_unsmoothed": "loss",
    "train/grad_norm": "grad_norm",
    "val/accuracy": "accuracy",
    "goodput": "goodput",
    "badput_save": "badput",
    "badput_lost": "badput",
  }
  # The loss is a whole row; norms come after metrics, and timings at the end.
  places = {v[2].get_title(): v[2].get_position() for v in drawn.values()}
  order = sorted(places, key=lambda t: (-places[t].y0, places[t].x0))
  assert order == ["loss", "accuracy", "grad_norm", "goodput", "badput"]
  assert places["loss"].width > 4 * places["accuracy"].width
  pixels = image.imread(path)
  assert pixels.shape[:2] == (750, 1600)  # four panels below the first one
  assert np.unique(pixels[..., :3].reshape(-1, 3), axis=0).shape[0] > 20


def test_long_series_are_smoothed_and_the_legend_states_it(tmp_path, drawn):
  values = np.random.default_rng(0).normal(size=400).tolist()
  rows(tmp_path, *((k + 1, {"train/loss": v}) for k, v in enumerate(values)))
  curves.draw_curves(str(tmp_path))
  assert drawn["train/loss"][1] == values
  steps, smooth, _ = drawn["train/loss, mean of 9"]
  assert steps == list(range(1, 401))
  wanted = [np.mean(values[max(0, i - 4) : i + 5]) for i in range(400)]
  np.testing.assert_allclose(smooth, wanted, atol=1e-12)


def test_there_are_no_curves_of_nothing(tmp_path):
  assert curves.draw_curves(str(tmp_path)) is None
  assert list(tmp_path.iterdir()) == []
