"""metrics.jsonl: rows on disk, and those that a resumed run drops."""

import json

import pytest

from train.workdir import metrics


def written(path, steps, offset=0.0, start=None):
  made = metrics.files(str(path))
  made.start(start)
  for step in steps:
    made.write(step, {"train/loss": step + offset})
  made.close()


def test_rows_are_on_disk_as_soon_as_written(tmp_path):
  made = metrics.files(str(tmp_path))
  made.start(None)
  made.write(1, {"train/loss": 0.1, "val/accuracy": 1.0})
  text = (tmp_path / "metrics.jsonl").read_text()
  assert [json.loads(line) for line in text.splitlines()] == [
    {"step": 1, "train/loss": 0.1, "val/accuracy": 1.0}
  ]
  made.close()


@pytest.mark.parametrize(
  "tail",
  ["", '{"step": 4, "tr', '{"step": 4, "train/loss": 9}'],
  ids=["whole", "cut", "cut before the newline"],
)
@pytest.mark.parametrize("kept", [3, 5])
def test_start_keeps_the_rows_up_to_the_step(tmp_path, tail, kept):
  written(tmp_path, [1, 2, 3, 4, 5])
  path = tmp_path / "metrics.jsonl"
  before = path.read_text().splitlines()
  with path.open("a") as file:
    file.write(tail)
  assert [r["step"] for r in metrics.read_metrics(tmp_path)] == [1, 2, 3, 4, 5]
  written(tmp_path, [6], start=kept)
  after = path.read_text()
  assert after.endswith("\n")
  assert after.splitlines()[:-1] == before[:kept]
  assert json.loads(after.splitlines()[-1]) == {"step": 6, "train/loss": 6}
  assert not list(tmp_path.glob("*.tmp"))


def test_start_anew_drops_everything(tmp_path):
  written(tmp_path, [1, 2])
  written(tmp_path, [], start=None)
  assert (tmp_path / "metrics.jsonl").read_text() == ""
  assert metrics.read_metrics(str(tmp_path / "nowhere")) == []


def test_rows_of_evaluations_that_run_again_are_dropped(tmp_path):
  made = metrics.files(str(tmp_path))
  made.start(None)
  for step in (2, 4):
    made.write(step, {"train/loss": 0.5, "goodput": 1.0})
    made.write(step, {"val/loss": 0.25, "val/f1": 1.0})
    made.write(step, {"end/loss": 0.25})
  made.start(4, unfinished=["val"])
  made.close()
  assert [
    (row["step"], sorted(row.keys() - {"step"})[-1])
    for row in metrics.read_metrics(str(tmp_path))
  ] == [
    *((2, "train/loss"), (2, "val/loss"), (2, "end/loss")),
    *((4, "train/loss"), (4, "end/loss")),
  ]
