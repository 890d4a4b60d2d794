"""config.writers: what each backend reads back, and what ends no run."""

import json
import sys
import time

import numpy as np
import pytest

from common import config_keys
from common.errors import UserError
from train.measuring import histograms
from train.workdir import metrics
from train.writers.parts import run_writer, writer

VALUES = np.array([-1.0, 0.0, 0.25, 0.5, 3.0, 3.0], np.float32)


def config_of(*writers, **keys):
  sections = dict.fromkeys(("task", "model", "learner", "optimizer", "data"))
  sections = {name: {"name": "x"} for name in sections}
  return config_keys.complete(
    {"total_steps": 9, "batch_size": 1, **sections, "writers": writers, **keys}
  )


def made(workdir, *writers, lines=None, writes=True):
  lines = [] if lines is None else lines
  return run_writer.run_writer(
    str(workdir), config_of(*writers), lines.append, writes
  )


def used(workdir, steps, start, *writers, offset=0.0):
  """A run's writer from `start` on: two rows a step, and one of the others."""
  lines = []
  found = made(workdir, *writers, lines=lines)
  found.start(start)
  for step in steps:
    found.write(step, {"train/loss": step / 3 + offset, "goodput": 0.5})
    found.write(step, {"val/accuracy": step / 7})
  step = steps[-1]
  found.histograms(step, {"params/w": histograms.histogram(VALUES)})
  found.show(step, "val/samples", "image", np.full((4, 6, 3), 9, np.uint8))
  found.show(step, "val/text", "text", "# one\n\n<b>two")
  found.close()
  assert lines == []


@pytest.mark.parametrize(
  ("writers", "line"),
  [
    ({"a": 1}, "config.writers={'a': 1}: not a list of sections"),
    (["tensorboard"], "config.writers[0]='tensorboard': not a section"),
    ([{}], "config.writers[0].name: missing"),
    ([{"name": 3}], "config.writers[0].name: missing"),
    (
      [{"name": "tensorboard"}, {"name": "tensorboard"}],
      "config.writers[1].name='tensorboard': named twice",
    ),
    (
      [{"name": "tensorboard", "histograms_every": -1}],
      "config.writers[0].histograms_every=-1: not a whole number of at least 0",
    ),
  ],
)
def test_a_wrong_list_is_refused(writers, line):
  with pytest.raises(UserError) as error:
    config_of(writers=writers) if isinstance(writers, dict) else config_of(
      *writers
    )
  assert str(error.value).startswith(line)


@pytest.mark.parametrize("writes", [True, False])
def test_a_wrong_name_or_setting_is_refused_on_every_process(tmp_path, writes):
  with pytest.raises(UserError, match='did you mean "tensorboard"') as error:
    made(tmp_path, {"name": "tensorbord"}, writes=writes)
  assert str(error.value).startswith("config.writers[0].name: train/writers")
  with pytest.raises(UserError, match='did you mean "histograms_every"'):
    made(tmp_path, {"name": "tensorboard", "histogram_every": 1}, writes=writes)
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_missing_library_is_one_line(tmp_path, name, monkeypatch):
  monkeypatch.setattr(writer.importlib.util, "find_spec", lambda name: None)
  with pytest.raises(UserError) as error:
    made(tmp_path, {"name": name})
  assert str(error.value) == (
    f"config.writers: {name} is not installed: pip install -e '.[{name}]'"
  )


def test_the_default_is_tensorboard_and_none_leaves_metrics_alone(tmp_path):
  assert config_keys.DEFAULTS["writers"] == [{"name": "tensorboard"}]
  used(tmp_path, [1, 2], None)
  assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]
  assert [r["step"] for r in metrics.read_metrics(str(tmp_path))] == [
    1,
    1,
    2,
    2,
  ]


def test_other_processes_write_nothing(tmp_path):
  other = made(tmp_path, {"name": "tensorboard"}, writes=False)
  other.start(None)
  other.write(1, {"a": 1.0})
  other.show(1, "a", "text", "b")
  other.close()
  assert list(tmp_path.iterdir()) == []


def events(workdir):
  accumulator = pytest.importorskip(
    "tensorboard.backend.event_processing.event_accumulator"
  )
  found = accumulator.EventAccumulator(
    str(workdir), {"tensors": 0, "histograms": 0}
  )
  found.Reload()
  return found


def test_tensorboard_has_the_figures_of_metrics_jsonl(tmp_path):
  section = {"name": "tensorboard", "histograms_every": 5}
  used(tmp_path, [1, 2, 3, 4, 5], None, section)
  # A resumed run repeats steps 4 and 5, with other values.
  used(tmp_path, [4, 5], 3, section, offset=0.5)
  found = events(tmp_path)
  wanted = {}
  for row in metrics.read_metrics(str(tmp_path)):
    for key in row.keys() - {"step"}:
      wanted.setdefault(key, []).append((row["step"], np.float32(row[key])))
  assert {
    tag: [(e.step, np.float32(e.value)) for e in found.Scalars(tag)]
    for tag in found.Tags()["scalars"]
  } == wanted
  assert [s for s, _ in wanted["train/loss"]] == [1, 2, 3, 4, 5]


def test_tensorboard_has_histograms_images_and_text(tmp_path):
  from matplotlib import image

  used(tmp_path, [5], None, {"name": "tensorboard", "histograms_every": 5})
  found = events(tmp_path)
  (event,) = found.Histograms("params/w")
  histo = event.histogram_value
  assert (event.step, histo.min, histo.max, histo.num) == (5, -1, 3, 6)
  assert histo.sum == 5.75 and histo.sum_squares == 19.3125
  counts, edges = np.histogram(VALUES, histograms.BINS, (-1, 3))
  assert histo.bucket == counts.tolist()
  np.testing.assert_allclose(histo.bucket_limit, edges[1:], atol=1e-6)

  (event,) = found.Images("val/samples")
  assert (event.step, event.width, event.height) == (5, 6, 4)
  (tmp_path / "x.png").write_bytes(event.encoded_image_string)
  pixels = image.imread(tmp_path / "x.png")
  assert pixels.shape == (4, 6, 4)
  np.testing.assert_allclose(pixels[..., :3], 9 / 255, atol=1e-6)

  (event,) = found.Tensors("val/text")
  assert event.tensor_proto.string_val == [b"    # one\n    \n    <b>two"]
  metadata = found.SummaryMetadata("val/text")
  assert metadata.plugin_data.plugin_name == "text"


def test_histograms_come_every_so_many_steps_by_writer(tmp_path):
  calls = []
  found = made(tmp_path, {"name": "tensorboard", "histograms_every": 4})
  found.start(None)
  for step in range(1, 9):
    found.histograms(step, {"params/w": histograms.histogram(VALUES + step)})
  found.close()
  calls = [
    (e.step, e.histogram_value.min)
    for e in events(tmp_path).Histograms("params/w")
  ]
  assert calls == [(4, 3), (8, 7)]


class Broken:
  """A backend that fails while `down`; records what it writes."""

  def __init__(self):
    self.down, self.calls = False, []

  def call(self, *row):
    if self.down:
      raise ConnectionError("no route\nto host")
    self.calls.append(row)

  def writer(self):
    return writer.Writer(
      lambda step: self.call("start", step),
      lambda step, scalars: self.call("write", step),
      close=lambda: self.call("close"),
    )


@pytest.mark.parametrize("at", ["start", "write"])
def test_a_backend_that_fails_is_one_line_and_tried_again(at, monkeypatch):
  now, lines, broken = [0.0], [], Broken()
  monkeypatch.setattr(writer.time, "monotonic", lambda: now[0])
  found = writer.guarded("service", broken.writer(), lines.append)
  broken.down = at == "start"
  found.start(3)
  broken.down = True
  for step in (4, 5):
    found.write(step, {})
  assert lines == [
    "writer service failed: ConnectionError: no route; the run continues"
    " without it, and it is tried again later"
  ]
  now[0] = 61
  found.write(6, {})  # fails again, silently; the wait doubles
  broken.down = False
  now[0] = 180
  found.write(7, {})
  now[0] = 182
  found.write(8, {})
  found.write(9, {})
  found.close()
  assert lines[1:] == ["writer service works again"]
  assert broken.calls == [
    *(("start", 3), ("write", 8), ("write", 9), ("close",)),
  ]


def test_an_error_of_metrics_jsonl_is_not_passed_over(tmp_path):
  (tmp_path / "metrics.jsonl").mkdir()
  with pytest.raises((OSError, UserError)):
    made(tmp_path).start(None)


class FakeRun:
  """Stands in for wandb.Run: steps only grow."""

  def __init__(self, rows):
    self.rows, self.step = rows, 1 + max((s for s, _ in rows), default=-1)

  def log(self, values, step):
    assert step >= self.step
    self.step = step
    self.rows.append((step, values))

  def finish(self, exit_code):
    self.rows.append((self.step, exit_code))


def test_wandb_continues_its_run_and_repeats_no_step(tmp_path, monkeypatch):
  rows, settings = [], []

  def init(**given):
    settings.append(given)
    return FakeRun(rows)

  fake = type(sys)("wandb")
  fake.init, fake.Settings = init, dict
  fake.Image = fake.Html = fake.Histogram = lambda *args, **keys: "drawn"
  monkeypatch.setitem(sys.modules, "wandb", fake)
  monkeypatch.setattr(writer.importlib.util, "find_spec", lambda name: True)
  section = {"name": "wandb", "project": "p", "mode": "offline"}
  used(tmp_path, [1, 2, 3], None, section)
  used(tmp_path, [2, 3, 4, 5], 1, section)
  logged = [(s, row) for s, row in rows if isinstance(row, dict)]
  losses = [s for s, row in logged if "train/loss" in row]
  assert losses == [1, 2, 3, 4, 5]
  first, second = settings
  assert first["id"] == second["id"]
  assert (tmp_path / "wandb_run_id").read_text() == first["id"] + "\n"
  assert first["resume"] == "allow" and first["project"] == "p"
  assert first["name"] == tmp_path.name
  assert [row for _, row in rows if row == 0] == [0, 0]  # exit codes


def test_wandb_refuses_an_unknown_mode(tmp_path):
  with pytest.raises(UserError, match=r"config.writers\[0\]: mode='of'"):
    made(tmp_path, {"name": "wandb", "mode": "of"})


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_wandb_offline(tmp_path, monkeypatch):
  pytest.importorskip("wandb")
  monkeypatch.setenv("WANDB_X_DISABLE_STATS", "true")
  section = {"name": "wandb", "mode": "offline", "histograms_every": 2}
  used(tmp_path, [1, 2], None, section)
  run = (tmp_path / "wandb_run_id").read_text().strip()
  (stored,) = tmp_path.glob(f"wandb/offline-run-*/run-{run}.wandb")
  names = b"train/loss val/accuracy params/w val/samples val/text"
  until = time.monotonic() + 30  # another process writes the file

  def missing():
    return [n for n in names.split() if n not in stored.read_bytes()]

  while missing() and time.monotonic() < until:
    time.sleep(0.1)
  assert not missing()


@pytest.mark.filterwarnings("ignore")
def test_mlflow_in_a_folder(tmp_path, monkeypatch):
  pytest.importorskip("mlflow")
  monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
  monkeypatch.chdir(tmp_path)
  uri = (tmp_path / "store").as_uri()
  section = {"name": "mlflow", "tracking_uri": uri, "histograms_every": 1}
  workdir = tmp_path / "run"
  workdir.mkdir()
  used(workdir, [1, 2, 3], None, section)
  # Steps 2 and 3 come again: what was logged first stays.
  used(workdir, [2, 3, 4], 1, section, offset=0.5)

  from mlflow.tracking import MlflowClient

  client = MlflowClient(uri)
  run_id = (workdir / "mlflow_run_id").read_text().strip()
  history = client.get_metric_history(run_id, "train/loss")
  assert [(m.step, m.value) for m in history] == [
    *((1, 1 / 3), (2, 2 / 3), (3, 1.0), (4, 4 / 3 + 0.5)),
  ]
  run = client.get_run(run_id)
  assert run.info.status == "FINISHED" and run.info.run_name == "run"
  assert run.data.params["total_steps"] == "9"
  assert run.data.params["model.name"] == "x"
  path = client.download_artifacts(run_id, "histograms/0000004.json")
  with open(path) as file:
    counts = json.load(file)["params/w"]["counts"]
  assert counts == np.histogram(VALUES, histograms.BINS)[0].tolist()
  path = client.download_artifacts(run_id, "text/val/text/0000003.txt")
  with open(path) as file:
    assert file.read() == "# one\n\n<b>two"
  images = client.list_artifacts(run_id, "images")
  assert sum(each.path.endswith(".png") for each in images) == 2


@pytest.mark.filterwarnings("ignore")
def test_mlflow_marks_how_a_run_ended(tmp_path, monkeypatch):
  pytest.importorskip("mlflow")
  from train.writers import mlflow

  assert mlflow._status(None) == "FINISHED"
  assert mlflow._status(FloatingPointError) == "FAILED"
  assert mlflow._status(KeyboardInterrupt) == "KILLED"
