"""The workdirs of earlier releases open, evaluate and go on.

tests/workdirs/vX holds one made by release X; none is ever changed or removed.
Made by: configs/textbook/linear_regression.py:smoke with model.hidden=(3,),
optimizer=dict(name="adam", lr=0.01), learner.ema=0.9, batch_size=8, 4 steps.
"""

import json
import pathlib
import shutil

import pytest

from train import assembly, build, loop, trained
from train.checkpointing import checkpoint
from train.workdir import run_record

pytestmark = pytest.mark.optimized

WORKDIRS = sorted((pathlib.Path(__file__).parents[2] / "workdirs").iterdir())


@pytest.fixture(params=WORKDIRS, ids=lambda path: path.name)
def workdir(request, tmp_path):
  """A copy: a run would write to it."""
  return pathlib.Path(shutil.copytree(request.param, tmp_path / "run"))


def rows(workdir):
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  return [json.loads(line) for line in lines]


def test_it_opens_and_says_what_it_said_then(workdir):
  assert checkpoint.verify(workdir / "checkpoints", 4) == []
  found = trained.load(str(workdir))
  assert found.step == 4
  written = [r["val/loss"] for r in rows(workdir) if "val/loss" in r][-1]
  parts = assembly.experiment(run_record.read_config(str(workdir)))
  evaluate = build.evaluator(parts, "val", str(workdir), print)
  # Another release of XLA may sum in another order.
  assert evaluate(found.variables, 4)["loss"] == pytest.approx(written, 1e-5)


def test_it_goes_on(workdir):
  before = rows(workdir)
  config = run_record.read_config(str(workdir))
  config["total_steps"] = 6
  reports = list(loop.fit(build.run(config, str(workdir))))
  assert [r.step for r in reports] == [5, 6, 6]
  assert rows(workdir)[: len(before)] == before
  assert not (workdir / "damaged").exists()
