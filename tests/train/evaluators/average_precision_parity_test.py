"""Average precision of drawn detections, as torchmetrics measures it."""

import numpy as np
import pytest
from detections import figures

torch = pytest.importorskip("torch")
detection = pytest.importorskip("torchmetrics.detection")
pytestmark = pytest.mark.parity
# Our names -> theirs.
NAMES = {
  "map": "map",
  "map50": "map_50",
  "map75": "map_75",
  "map_small": "map_small",
  "map_medium": "map_medium",
  "map_large": "map_large",
}


def drawn(rng, images=24):
  """Objects of all areas, and detections of which some miss them."""
  rows = []
  for _ in range(images):
    objects, guesses = [], []
    for _ in range(rng.integers(0, 6)):
      x, y = rng.uniform(0, 400, 2)
      width, height = np.exp(rng.uniform(2, 5.3, 2))
      box = np.array([x, y, x + width, y + height])
      kind = int(rng.integers(2))
      objects.append((box, kind))
      for _ in range(rng.integers(0, 3)):
        moved = box + rng.normal(size=4) * 0.1 * np.array([width, height] * 2)
        label = kind if rng.random() < 0.8 else 1 - kind
        guesses.append((moved, label, rng.random()))
    rows.append((objects, guesses))
  return rows


def test_torchmetrics_measures_the_same():
  rows = drawn(np.random.default_rng(0))
  length = max(len(objects) for objects, _ in rows)
  crowd = np.random.default_rng(1).random((len(rows), length)) < 0.1

  def sides(entries):
    return {
      "boxes": torch.tensor(np.array([e[0] for e in entries], np.float32))
      .reshape(-1, 4),
      "labels": torch.tensor([e[1] for e in entries], dtype=torch.int64),
    }  # fmt: skip

  # By default torchmetrics rounds these to float32, with which a recall of
  # exactly 0.3 counts as less.
  recalls = np.linspace(0, 1, 101).tolist()
  metric = detection.MeanAveragePrecision(rec_thresholds=recalls)
  for (objects, guesses), crowd_N in zip(rows, crowd, strict=True):
    scores = torch.tensor([e[2] for e in guesses], dtype=torch.float32)
    iscrowd = torch.tensor(crowd_N[: len(objects)].astype(int))
    metric.update(
      [{**sides(guesses), "scores": scores}],
      [{**sides(objects), "iscrowd": iscrowd}],
    )
  wanted = metric.compute()
  found = figures(rows, crowd=crowd.astype(np.int32))
  assert 0.1 < found["map"] < 0.9
  for ours, theirs in NAMES.items():
    # theirs are float32
    assert found[ours] == pytest.approx(wanted[theirs].item(), abs=1e-6)
