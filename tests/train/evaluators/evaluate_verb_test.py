"""What `train.evaluate` prints, and where."""

import json
import sys

import forkserver
import pytest

SCRIPT = """
import types
from train import build, evaluate, trained

def load(workdir, step, say):
  say("damaged: a checkpoint")
  return types.SimpleNamespace(variables=None, step=7)

def evaluators(found, workdir, say):
  def val(variables, step):
    say("samples  a.txt")
    return {"loss": 2.5}
  return {"val": val}

trained.load, build.evaluators = load, evaluators
evaluate.cli.run(evaluate.main)
"""


@pytest.mark.slow
def test_stdout_has_the_figures_alone(tmp_path):
  done = forkserver.run(
    [sys.executable, "-c", SCRIPT, f"--workdir={tmp_path}"],
    capture_output=True,
    text=True,
  )
  assert json.loads(done.stdout) == {"step": 7, "val/loss": 2.5}, done.stderr
  lines = done.stderr.splitlines()
  assert lines[-2:] == ["damaged: a checkpoint", "samples  a.txt"]
