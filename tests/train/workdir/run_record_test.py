"""Which workdirs a config may use, and what is printed about them."""

import json

import pytest

from common.errors import UserError
from train.workdir import run_record

CONFIG = {"data": {"labels": ["good", "bas"]}, "learner": {}, "model": {}}
CONFIG |= {"task": {"name": "classification"}, "total_steps": 450}
CORRECTED = {**CONFIG, "data": {"labels": ["good", "bad"]}}


@pytest.fixture
def workdir(tmp_path):
  """What a start leaves behind that failed on its data."""
  (tmp_path / "config.json").write_text(json.dumps(CONFIG))
  for name in ("data.json", "metrics.jsonl", "tokenizer.json", "run.lock"):
    (tmp_path / name).touch()
  (tmp_path / "checkpoints").mkdir()
  return tmp_path


def notes(workdir, config) -> list[str]:
  lines = []
  run_record.check(str(workdir), config, {}, lines.append)
  return lines


def test_a_config_that_trained_nothing_is_replaced(workdir):
  assert notes(workdir, CONFIG) == []
  assert (workdir / "tokenizer.json").exists()
  (line,) = notes(workdir, CORRECTED)
  assert "its config is replaced" in line
  left = {path.name for path in workdir.iterdir()}
  assert left == {"metrics.jsonl", "run.lock", "checkpoints"}


@pytest.mark.parametrize("trace", ["checkpoints/7/_METADATA", "metrics.jsonl"])
def test_a_config_that_trained_is_not_replaced(trace, workdir):
  path = workdir / trace
  path.parent.mkdir(exist_ok=True)
  path.write_text('{"step": 7}\n')
  with pytest.raises(UserError, match=r"another config: config\.data\.labels"):
    notes(workdir, CORRECTED)
  assert json.loads((workdir / "config.json").read_text()) == CONFIG


@pytest.mark.parametrize(
  ("total", "said"),
  [
    (450, None),
    (300, "300; a schedule that depends on it changes from step 62 on"),
    (62, "62; step 62 is saved already, so nothing is left to do"),
    (60, "60; step 62 is saved already, so nothing is left to do"),
  ],
)
def test_another_length_is_printed(total, said, workdir):
  for name in ("9", "62", "100.orbax-checkpoint-tmp"):
    (workdir / "checkpoints" / name).mkdir()
  lines = [f"total_steps: 450 → {said}"] if said else []
  assert notes(workdir, {**CONFIG, "total_steps": total}) == lines
