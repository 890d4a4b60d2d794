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


def test_a_config_of_another_program_is_refused_and_kept(tmp_path):
  path = tmp_path / "config.json"
  path.write_text('{"model_type": "llama", "vocab_size": 256}')
  with pytest.raises(UserError, match=r"config\.json is not Tessera's"):
    notes(tmp_path, CONFIG)
  assert "llama" in path.read_text()


def test_other_files_are_counted(tmp_path):
  for name in ("notes.txt", "b.csv", "run.lock", "events.out.tfevents.1", ".x"):
    (tmp_path / name).touch()
  (line,) = notes(tmp_path, CONFIG)
  assert line.endswith("beside 2 other files or folders")
  (tmp_path / "b.csv").unlink()
  (line,) = notes(tmp_path, CONFIG)
  assert line.endswith("beside 1 other file or folder")


def test_a_tokenizer_of_another_program_is_not_removed(tmp_path):
  for name in ("tokenizer.json", "model.safetensors"):
    (tmp_path / name).touch()
  with pytest.raises(UserError, match=r"not Tessera's \(model\.safetensors\)"):
    notes(tmp_path, CONFIG)
  assert (tmp_path / "tokenizer.json").exists()


def test_checkpoints_without_their_config_are_not_resumed(tmp_path):
  (tmp_path / "checkpoints" / "4").mkdir(parents=True)
  with pytest.raises(UserError, match="its config.json is missing: restore it"):
    run_record.check(str(tmp_path), {}, {})
