"""train.inspect: what is in a workdir, and what of it is damaged."""

import json
import os
import pathlib
import shutil
import sys

import forkserver
import pytest

from common import config_keys
from train import build, loop
from train.checkpointing import bad_batches, checkpoint, records
from train.workdir import inspection, run_lock

ROOT = pathlib.Path(__file__).parents[3]
STEPS = [4, 8, 12]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  """A run that keeps three checkpoints, its state over eight devices."""
  from configs.textbook import linear_regression

  config = config_keys.plain(linear_regression.get_config("smoke")) | {
    "total_steps": 12,
    "batch_size": 16,
    "log_every_steps": 1,
    "checkpoint": {"every_steps": 4, "keep": 3},
    "mesh": {"data": 2, "fsdp": 4},
    "sharding": [[".*", "fsdp"]],
  }
  workdir = tmp_path_factory.mktemp("finished") / "a"
  list(loop.fit(build.run(config, str(workdir), say=lambda line: None)))
  return workdir


@pytest.fixture
def workdir(finished, tmp_path):
  return pathlib.Path(shutil.copytree(finished, tmp_path / "a"))


def inspect(*arguments):
  """(exit code, lines, error) of the command, on a machine of one device."""
  done = forkserver.run(
    [sys.executable, "-m", "train.inspect", *map(str, arguments)],
    cwd=ROOT,
    env={**os.environ, "XLA_FLAGS": ""},
    capture_output=True,
    text=True,
  )
  assert "Traceback" not in done.stderr
  return done.returncode, done.stdout.splitlines(), done.stderr


def content(folder: pathlib.Path) -> dict:
  return {
    str(p): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")
  }


def states(found) -> dict[int, str]:
  return {each["step"]: each["state"] for each in found["checkpoints"]}


def test_a_whole_run(workdir):
  # Neither the model's code nor the data are needed.
  config = json.loads((workdir / "config.json").read_text())
  config["model"]["name"] = "gone"
  config["data"]["source"] = "text:/nowhere/*"
  (workdir / "config.json").write_text(json.dumps(config))
  before = content(workdir)
  with_lock = run_lock.hold(str(workdir))  # as by a run that is going on
  code, lines, error = inspect(workdir)
  with_lock.release()
  assert (code, error) == (0, "")
  assert lines[0] == f"{workdir}: regression, gone, sgd"
  rows = {
    row["step"]: row
    for line in (workdir / "metrics.jsonl").read_text().splitlines()
    if "train/loss" in (row := json.loads(line))
  }
  assert [line.split()[0] for line in lines[2:]] == [str(s) for s in STEPS]
  assert len({line.split()[8] for line in lines[2:]}) == len(STEPS)
  for step, line in zip(STEPS, lines[2:], strict=True):
    assert line.split()[1] == str(16 * step)
    assert " verified " in line
    assert len(set(line.split()[8]) - set("0123456789abcdef")) == 0
    assert f"train/loss {rows[step]['train/loss']:.4g}" in line
  assert content(workdir) == before


def test_json_is_one_object(workdir):
  code, lines, _ = inspect(workdir, "--json")
  (found,) = json.loads("\n".join(lines))["runs"]
  assert code == 0 and len(lines) == 1 and found["damaged"] == []
  for each in found["checkpoints"]:
    folder = workdir / "checkpoints" / str(each["step"])
    files = [p for p in folder.rglob("*") if p.is_file()]
    assert each["bytes"] == sum(p.stat().st_size for p in files)
    assert each["format"] == 1  # 2 has frozen arrays
    assert each["saved"] == folder.stat().st_mtime


def largest(folder: pathlib.Path) -> pathlib.Path:
  files = [p for p in folder.rglob("d/*") if p.is_file()]
  return max(files, key=lambda p: p.stat().st_size)


@pytest.mark.parametrize("fault", ["flip", "cut", "gone", "record"])
def test_a_damaged_checkpoint_is_named(fault, workdir):
  folder = workdir / "checkpoints" / "8"
  path = largest(folder)
  if fault == "record":
    path = folder / "data" / "metadata"
  data = bytearray(path.read_bytes())
  if fault == "cut":
    path.write_bytes(data[: len(data) // 2])
  elif fault == "gone":
    path.unlink()
  else:
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
  code, lines, _ = inspect(workdir)
  assert code == 1
  assert [line.split()[7] for line in lines[2:5]] == [
    "verified",
    "damaged",
    "verified",
  ]
  told = [line for line in lines if line.startswith("  damaged: ")]
  assert len(told) == 1 and str(folder) in told[0]


def test_weights_that_read_well_but_are_others(workdir):
  """What Orbax does not notice: the arrays of another step."""
  checkpoints = workdir / "checkpoints"
  shutil.rmtree(checkpoints / "8" / "state")
  shutil.copytree(checkpoints / "4" / "state", checkpoints / "8" / "state")
  found = inspection.run(str(workdir))
  assert states(found) == {4: "verified", 8: "damaged", 12: "verified"}
  assert all("its digest differs" in line for line in found["damaged"])


def test_other_formats(workdir):
  checkpoints = workdir / "checkpoints"
  old, new = (checkpoints / s / "data" / "metadata" for s in ("4", "8"))
  old.write_text(json.dumps({"position": 64}))
  record = json.loads(new.read_text())
  record.pop("seal")
  record["format"] = checkpoint.FORMAT + 1
  new.write_text(json.dumps({**record, "seal": records.seal(record)}))
  found = inspection.run(str(workdir))
  assert states(found) == {4: "read", 8: "unknown", 12: "verified"}
  assert [each["format"] for each in found["checkpoints"]] == [
    0,
    None,
    1,
  ]
  assert found["checkpoints"][0]["position"] == 64
  assert found["damaged"] == []


def test_what_a_run_left_beside_its_checkpoints(workdir):
  (workdir / "checkpoints" / "16.orbax-checkpoint-tmp").mkdir()
  (workdir / "damaged" / "7").mkdir(parents=True)
  skip = bad_batches.Skip(9, 4, (6, 10), "loss 7e9\n\x1b[2J")
  bad_batches.append(workdir / "skipped.jsonl", skip, 16)
  code, lines, _ = inspect(workdir)
  assert code == 0
  assert r"  skipped: batches 6 to 9: loss 7e9\x0a\x1b[2J" in lines
  assert any("unfinished: 16.orbax" in line for line in lines)
  assert f"  set aside as damaged: {workdir / 'damaged' / '7'}" in lines


def test_two_runs_key_by_key(workdir, tmp_path):
  other = pathlib.Path(shutil.copytree(workdir, tmp_path / "b"))
  assert inspect(workdir, other)[1][-2:] == [
    f"differences ({workdir} | {other}):",
    "  none",
  ]
  config = json.loads((other / "config.json").read_text())
  lr = config["optimizer"]["lr"]
  config["optimizer"]["lr"] = 7
  config["model"]["depth"] = {"a": 1}
  del config["seed"]
  (other / "config.json").write_text(json.dumps(config))
  facts = json.loads((other / "data.json").read_text())
  size = facts["num_examples"]
  facts["num_examples"] = 12345
  (other / "data.json").write_text(json.dumps(facts))
  code, lines, _ = inspect(workdir, other)
  assert code == 0
  assert lines[lines.index(f"differences ({workdir} | {other}):") + 1 :] == [
    "  model.depth.a: - | 1",
    f"  optimizer.lr: {lr} | 7",
    "  seed: 0 | -",
    f"  data.json num_examples: {size} | 12345",
  ]
  _, (line,), _ = inspect(workdir, other, "--json")
  assert json.loads(line)["differences"]["optimizer.lr"] == [lr, 7]


@pytest.mark.parametrize("name", ["config.json", "data.json"])
def test_a_damaged_config_is_named_and_the_rest_told(name, workdir):
  (workdir / name).write_bytes(b"{\xff")
  code, lines, _ = inspect(workdir)
  assert code == 1
  assert f"  damaged: {workdir / name}: not UTF-8 at byte 1" in lines
  assert sum(" verified " in line for line in lines) == len(STEPS)


def test_where_there_is_no_run(tmp_path):
  for arguments, said in (
    (
      [tmp_path],
      f"{tmp_path}: no config.json, so this is not the workdir of a run",
    ),
    ([], "give one or two workdirs"),
    (["a", "b", "c"], "give one or two workdirs"),
  ):
    code, lines, error = inspect(*arguments)
    assert (code, lines) == (2, [])
    assert error.startswith("error: ") and said in error
    assert error.count("\n") == 1


def test_a_run_that_has_saved_nothing(workdir):
  shutil.rmtree(workdir / "checkpoints")
  code, lines, _ = inspect(workdir)
  assert code == 0
  assert lines[1:] == ["  no checkpoint has been saved yet"]
