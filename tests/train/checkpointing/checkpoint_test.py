"""A damaged checkpoint is named and passed over, and never trained on."""

import json
import os
import pathlib
import random
import shutil
import sys
import time

import forkserver
import jax
import jax.numpy as jnp
import many_processes
import numpy as np
import pytest
from tiers import slow_but

from common import config_keys
from common.errors import SaveError, UserError
from configs.textbook import linear_regression
from train import assembly, build, loop, trained
from train.checkpointing import checkpoint, records, recovery

SAVED, STEPS = 6, 10

# train.main whose process 1 takes a second to list the checkpoints anew.
SLOW_TO_LIST = """
import os, runpy, sys, time
import orbax.checkpoint as ocp
reload = ocp.CheckpointManager.reload
def slowly(manager):
  found = os.listdir(manager.directory)
  time.sleep(1)
  assert os.listdir(manager.directory) == found, "moved meanwhile"
  reload(manager)
if "--process_id=1" in sys.argv:
  ocp.CheckpointManager.reload = slowly
runpy.run_module("train.main", run_name="__main__", alter_sys=True)
"""


def config_of(steps: int = STEPS, hidden=(8, 2000), **checkpoints):
  """Layers that lie in TensorStore's index, which has sums, and one beside."""
  config = config_keys.plain(linear_regression.get_config("smoke"))
  return {
    **config,
    "total_steps": steps,
    "log_every_steps": 1,
    "evals": {},
    "model": dict(name="mlp", hidden=list(hidden)),
    "optimizer": dict(name="adam", lr=0.1),
    "checkpoint": dict(every_steps=2, keep=3) | checkpoints,
  }


def train(workdir, steps: int = STEPS, strict=False, **settings) -> list[str]:
  """Runs to the end; what was said."""
  said = []
  run = build.run(config_of(steps, **settings), str(workdir), said.append)
  list(loop.fit(run._replace(strict=strict)))
  return said


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
  """ "straight" is a run of STEPS, "saved" the same until SAVED."""
  root = tmp_path_factory.mktemp("runs")
  train(root / "straight")
  train(root / "saved", SAVED)
  return root


@pytest.fixture
def workdir(runs, tmp_path):
  """A run with checkpoints of steps 2, 4 and 6, to be damaged."""
  return shutil.copytree(runs / "saved", tmp_path / "run")


def opened(workdir, hidden=(8, 2000)):
  """(manager, abstract state)."""
  parts = assembly.experiment(config_of(hidden=hidden))
  manager = checkpoint.open_manager(str(workdir / "checkpoints"), keep=3)
  return manager, assembly.state_of(parts)[1]


def bits(state) -> list[bytes]:
  return [np.asarray(x).tobytes() for x in jax.tree.leaves(state)]


def same_run(found, expected) -> None:
  states = [bits(trained.load_state(str(w))) for w in (found, expected)]
  assert states[0] == states[1]
  rows = [many_processes.rows(w) for w in (found, expected)]
  assert rows[0] == rows[1]
  assert [row["step"] for row in rows[0]] == list(range(1, STEPS + 1))


def record_of(workdir, step: int = SAVED) -> pathlib.Path:
  return workdir / "checkpoints" / str(step) / "data" / "metadata"


def rewrite(path: pathlib.Path, **changes) -> None:
  """Edits a record by hand, and seals it as if it had been saved so."""
  record = json.loads(path.read_text())
  record.pop("seal")
  record.update(changes)
  path.write_text(json.dumps({**record, "seal": records.seal(record)}))


def files_of(workdir, step: int = SAVED) -> list[pathlib.Path]:
  folder = workdir / "checkpoints" / str(step)
  return sorted(path for path in folder.rglob("*") if path.is_file())


def largest(workdir, step: int = SAVED) -> pathlib.Path:
  files = [p for p in files_of(workdir, step) if p.parent.name == "d"]
  return max(files, key=lambda path: path.stat().st_size)


def faults(data: bytes, rng: random.Random):
  """Contents that a file may have instead of `data`; None is no file."""
  for _ in range(6):
    flipped = bytearray(data)
    flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    yield bytes(flipped)
  yield data[: rng.randrange(len(data))]
  yield b""
  yield None


# Orbax leaves coroutines of other arrays behind when the metadata of one fails.
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
@pytest.mark.slow
def test_no_fault_of_any_file_is_trained_on(workdir, capfd):
  """It is found, or the state is that which was saved, to the bit."""
  manager, shapes = opened(workdir)
  expected = {
    step: bits(checkpoint.restore(manager, shapes, step).state)
    for step in (4, SAVED)
  }
  folder = str(workdir / "checkpoints" / str(SAVED))
  rng, reasons = random.Random(0), set()
  for path in files_of(workdir):
    data = path.read_bytes()
    for content in faults(data, rng):
      path.unlink() if content is None else path.write_bytes(content)
      found, passed = checkpoint.restore_last(manager, shapes)
      assert bits(found.state) == expected[found.step], path
      assert found.record["position"] == found.step * 112
      lines = checkpoint.verify(workdir / "checkpoints", SAVED)
      if found.step == SAVED:
        assert passed == []
        # What `verify` needs of them, which knows no model, `restore` does not.
        assert not lines or path.name in ("_METADATA", "_sharding"), lines
      else:
        ((step, reason),) = passed
        assert (found.step, step) == (4, SAVED)
        for line in (reason, *lines):
          assert line.startswith(folder), line
          assert len(line) < len(folder) + 350 and "\n" not in line
        assert lines, path
        with pytest.raises(checkpoint.DamagedError, match="--strict"):
          checkpoint.restore_last(manager, shapes, strict=True)
        reasons.add(reason.removeprefix(folder))
    path.write_bytes(data)
  manager.close()
  # All kinds were seen: TensorStore's own sums, missing files, our digests.
  text = " ".join(sorted(reasons))
  for kind in (
    "manifest.ocdbt: Error decoding manifest: CRC-32C",
    "/d/",
    "digest differs",
    "data/metadata: No such file",
    "the record differs from what was written",
  ):
    assert kind in text, text
  # Orbax's threads and TensorStore's keep their tracebacks to themselves.
  assert capfd.readouterr().err == ""


def flip(path: pathlib.Path, times: int = 16) -> None:
  """Flips a bit at so many places: of a file of arrays, not all are read."""
  data = bytearray(path.read_bytes())
  for i in range(times):
    data[len(data) * i // times] ^= 16
  path.write_bytes(data)


DAMAGES = {
  "flipped": lambda w: flip(largest(w)),
  "cut": lambda w: os.truncate(largest(w), 40),
  "deleted": lambda w: (
    record_of(w).parents[1] / "state/manifest.ocdbt"
  ).unlink(),
  "record": lambda w: flip(record_of(w)),
}


@pytest.mark.parametrize("kind", slow_but(["flipped"], DAMAGES))
def test_a_run_goes_on_from_the_one_before(kind, workdir, runs):
  DAMAGES[kind](workdir)
  left = tree(workdir / "checkpoints" / str(SAVED))
  said = train(workdir)
  folder = workdir / "checkpoints" / str(SAVED)
  damaged = [line for line in said if line.startswith("damaged: ")]
  assert len(damaged) == 1 and str(folder) in damaged[0]
  assert (
    "resuming from step 4: 2 steps are lost; the damaged checkpoints were"
    " moved to"
    f" {workdir}/damaged"
  ) in said
  same_run(workdir, runs / "straight")
  assert tree(workdir / "damaged" / str(SAVED)) == left
  assert sorted(os.listdir(workdir / "checkpoints")) == ["10", "6", "8"]


def test_two_that_are_damaged_at_once_and_again(workdir, runs):
  flip(largest(workdir, 4))
  flip(largest(workdir, 6))
  said = train(workdir, 8)
  assert any("resuming from step 2: 4 steps are lost" in x for x in said)
  flip(largest(workdir, 6))
  flip(largest(workdir, 8))
  train(workdir)
  assert sorted(os.listdir(workdir / "damaged")) == ["4", "6", "6.1", "8"]
  same_run(workdir, runs / "straight")


def tree(folder: pathlib.Path) -> dict[str, bytes]:
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in folder.rglob("*")
    if path.is_file()
  }


def command(workdir, tmp_path, *flags):
  """(exit code, lines on stderr) of the command that a user types."""
  flag = many_processes.flag_of(config_of(), tmp_path)
  done = forkserver.run(
    [
      *(sys.executable, "-m", "train.main", flag, f"--workdir={workdir}"),
      *flags,
    ],
    cwd=many_processes.ROOT,
    env={**os.environ, "XLA_FLAGS": ""},
    capture_output=True,
    text=True,
    timeout=300,
  )
  return done.returncode, done.stderr.splitlines()


@pytest.mark.slow
def test_where_none_is_whole_nothing_is_begun_anew(workdir, tmp_path):
  for step in (2, 4, 6):
    os.truncate(largest(workdir, step), 40)
  before = tree(workdir / "checkpoints")
  code, (line,) = command(workdir, tmp_path)
  assert code == 74 and line.startswith("error: no checkpoint is intact: ")
  assert line.endswith("or start in another --workdir")
  for step in (2, 4, 6):
    assert f"{workdir}/checkpoints/{step}/state: Requested byte range" in line
  assert tree(workdir / "checkpoints") == before
  assert not (workdir / "damaged").exists()
  assert len(many_processes.rows(workdir)) == SAVED


def test_strict_refuses_and_moves_nothing(workdir, tmp_path):
  flip(largest(workdir))
  before = tree(workdir / "checkpoints")
  code, (line,) = command(workdir, tmp_path, "--strict")
  assert code == 2 and line.endswith("(--strict)")
  assert f"{workdir}/checkpoints/6: " in line and "digest differs" in line
  assert tree(workdir / "checkpoints") == before


def test_strict_minds_no_damage_but_that_of_the_last(workdir, runs):
  flip(largest(workdir, 4))
  train(workdir, strict=True)
  same_run(workdir, runs / "straight")


@pytest.mark.parametrize("key", ["position", "digest"])
@pytest.mark.parametrize("sealed", [False, True])
def test_a_record_that_was_edited(key, sealed, workdir):
  """A position that was sealed anew is the editor's to answer for."""
  path = record_of(workdir)
  record = json.loads(path.read_text())
  changes = {"position": 7}
  if key == "digest":
    name = sorted(record["arrays"])[0]
    record["arrays"][name][2] = "0" * 16
    changes = {"arrays": record["arrays"]}
  if sealed:
    rewrite(path, **changes)
  else:
    path.write_text(json.dumps({**record, **changes}))
  manager, shapes = opened(workdir)
  found, passed = checkpoint.restore_last(manager, shapes)
  if sealed and key == "position":
    assert (found.step, found.record["position"]) == (SAVED, 7)
  else:
    assert found.step == 4
    reason = f"{name} is not what" if sealed else "the record differs from what"
    assert reason in passed[0][1]
    assert reason in checkpoint.verify(manager.directory, SAVED)[0]


def test_the_last_checkpoint_is_read_back_before_a_run_is_done(workdir):
  """As the loop closes it: all is well, an array flips, none is left."""

  def close(state=True):
    manager, shapes = opened(workdir)
    saver = recovery.Saver(manager, True, print)
    recovery.close(saver, shapes if state else None)

  close()
  flip(largest(workdir))
  close(state=False)  # of a run that failed for another reason
  with pytest.raises(SaveError, match="cannot be read back: .*/6"):
    close()
  record_of(workdir).unlink()
  with pytest.raises(SaveError, match="metadata"):
    close()
  for folder in (workdir / "checkpoints").iterdir():
    shutil.rmtree(folder)
  with pytest.raises(SaveError, match="no checkpoint is left"):
    close()


def test_of_a_large_state_a_few_parameters_are_read_back(monkeypatch):
  sizes = {"params": {"a": 9, "b": 2}, "rest": 1}
  state = {"variables": jax.tree.map(jnp.zeros, sizes)}
  assert len(checkpoint._few(state)) == 3
  monkeypatch.setattr(checkpoint, "_READ_BACK", 8)
  assert checkpoint._few(state) == {"variables/params/b"}


def test_arrays_that_changed_places(workdir):
  """Each of them is whole, and was saved; but not under this name."""
  manager, shapes = opened(workdir)
  state = checkpoint.restore(manager, shapes, SAVED).state
  layers = state.variables.params["layers"]
  a, b = (dict(layers[k]) for k in ("0", "1"))
  a["bias"], b["kernel"] = a["bias"] * 1, b["kernel"] * 1
  moments = jax.tree_util.tree_flatten_with_path(state.opt_state)[0]
  mu, nu = (
    next(x for p, x in moments if f"{k}/layers/1/kernel" in key_of(p))
    for k in ("mu", "nu")
  )
  swapped = jax.tree.map(
    lambda x: nu if x is mu else mu if x is nu else x, state
  )
  checkpoint.save(manager, 8, swapped, {**NO_HEALTH, "position": 1})
  checkpoint.check(manager, wait=True)
  assert checkpoint.restore(manager, shapes, 8).step == 8
  shutil.copy(record_of(workdir), record_of(workdir, 8))
  with pytest.raises(
    checkpoint.DamagedError, match=r"/mu/.* and 1 more is not"
  ):
    checkpoint.restore(manager, shapes, 8)
  assert len(checkpoint.verify(manager.directory, 8)) == 2


NO_HEALTH = {"evaluated": True, "health": {}, "rollbacks": 0}


def key_of(path) -> str:
  return jax.tree_util.keystr(path, simple=True, separator="/")


def test_a_state_of_another_model_is_no_damage(workdir):
  manager, shapes = opened(workdir, hidden=(8, 2001))
  for restore in (
    lambda: checkpoint.restore(manager, shapes, SAVED),
    lambda: checkpoint.restore_last(manager, shapes),
    lambda: checkpoint.restore_last(manager, shapes, strict=True),
  ):
    with pytest.raises(UserError, match=r"float32\[2000\] there and") as found:
      restore()
    assert not isinstance(found.value, checkpoint.DamagedError)
    assert "float32[2001] in this run" in str(found.value)


def test_a_checkpoint_of_a_later_release_is_not_passed_over(workdir):
  rewrite(record_of(workdir), format=checkpoint.FORMAT + 1, news=[1])
  before = tree(workdir / "checkpoints")
  with pytest.raises(UserError, match="update Tessera") as found:
    train(workdir)
  assert not isinstance(found.value, checkpoint.DamagedError)
  assert str(record_of(workdir)) in str(found.value)
  assert tree(workdir / "checkpoints") == before
  with pytest.raises(UserError, match="update Tessera"):
    checkpoint.verify(workdir / "checkpoints", SAVED)


def test_a_checkpoint_from_before_digests_opens(workdir, runs):
  for step in (2, 4, 6):
    record_of(workdir, step).write_text(json.dumps({"position": 112 * step}))
  assert checkpoint.verify(workdir / "checkpoints", SAVED) == []
  assert not [line for line in train(workdir) if "damaged" in line]
  same_run(workdir, runs / "straight")


def sparse(path: pathlib.Path) -> None:
  with path.open("wb") as file:
    file.truncate(2**30)


def nested(path: pathlib.Path, depth: int) -> None:
  path.write_text('{"health": ' + "[" * depth + "]" * depth + "}")


def folder_instead(path: pathlib.Path) -> None:
  path.unlink()
  path.mkdir()


HOSTILE = {
  "a gigabyte": sparse,
  "nested": lambda path: nested(path, 10**6),
  "nested, but readable": lambda path: nested(path, 900),
  "sealed and nested": lambda path: rewrite(
    path, x=json.loads("[" * 700 + "]" * 700)
  ),
  "no file": folder_instead,
  "no object": lambda path: path.write_text("[1, 2]"),
  "binary": lambda path: path.write_bytes(bytes(range(256))),
  "a number": lambda path: path.write_text("1e999"),
  "arrays a list": lambda path: rewrite(path, arrays=["x"]),
  "arrays of numbers": lambda path: rewrite(path, arrays={"step": 3}),
  "shapes of text": lambda path: rewrite(
    path, arrays={"step": ["f", ["x"], "d"]}
  ),
  "digests of numbers": lambda path: rewrite(
    path, arrays={"step": ["f", [], 1]}
  ),
  "no arrays": lambda path: rewrite(path, arrays=None),
  "format of text": lambda path: rewrite(path, format="1"),
  "format of truth": lambda path: rewrite(path, format=True),
  "position of text": lambda path: rewrite(path, position="0"),
  "health of text": lambda path: rewrite(path, health="well"),
  "rollbacks of text": lambda path: rewrite(path, rollbacks="1"),
}


@pytest.mark.parametrize(
  "kind", slow_but(["no arrays", "format of text"], HOSTILE)
)
def test_a_record_of_anything_is_damaged(kind, workdir):
  HOSTILE[kind](record_of(workdir))
  manager, shapes = opened(workdir)
  began = time.monotonic()
  found, passed = checkpoint.restore_last(manager, shapes)
  assert time.monotonic() - began < 5
  assert found.step == (SAVED if kind == "sealed and nested" else 4)
  for _, reason in passed:
    assert str(record_of(workdir)) in reason
    assert "\n" not in reason and len(reason) < 400
  lines = checkpoint.verify(manager.directory, SAVED)
  assert lines == [reason for _, reason in passed]


def test_more_than_are_kept_are_removed_at_the_next_start(workdir):
  """A kill may leave an old checkpoint whole, or half removed."""
  checkpoints = workdir / "checkpoints"
  shutil.rmtree(checkpoints / "2" / "state")
  (checkpoints / "1.orbax-checkpoint-tmp" / "data").mkdir(parents=True)
  said = train(workdir, SAVED, keep=2)
  assert sorted(os.listdir(checkpoints)) == ["4", "6"]
  assert not any("damaged" in line for line in said)


def test_what_came_after_a_return_is_removed_whole(workdir, monkeypatch):
  """A kill while it is removed leaves no half of a checkpoint behind."""

  class Killed(BaseException):
    pass

  def rmtree(path, **kwargs):
    if pathlib.Path(path).exists():
      raise Killed

  run = build.run(config_of(), str(workdir), lambda line: None)
  monkeypatch.setattr(recovery.shutil, "rmtree", rmtree)
  with pytest.raises(Killed):
    recovery._remove(run.checkpoints, [SAVED])
  monkeypatch.undo()
  assert sorted(os.listdir(workdir / "checkpoints")) == [
    *("2", "4", "6.orbax-checkpoint-tmp"),
  ]
  train(workdir)
  assert sorted(os.listdir(workdir / "checkpoints")) == ["10", "6", "8"]


@pytest.mark.slow
def test_a_checkpoint_that_one_of_two_processes_cannot_read(tmp_path):
  """Files are written, and read, by each process: both fall back alike."""
  config = config_of(SAVED, hidden=(64, 2048))
  config["mesh"], config["sharding"] = {"fsdp": 8}, [[".*", "fsdp"]]
  workdir = tmp_path / "run"
  began = time.monotonic()
  flag = many_processes.flag_of(config, tmp_path)
  found = many_processes.end(many_processes.start(2, workdir, flag))
  assert [code for code, _ in found] == [0, 0], found
  whole, straight = time.monotonic() - began, many_processes.rows(workdir)
  folder = workdir / "checkpoints" / str(SAVED) / "state" / "ocdbt.process_1"
  for path in folder.glob("d/*"):
    os.truncate(path, path.stat().st_size // 3)
  began = time.monotonic()
  found = many_processes.end(
    many_processes.start(2, workdir, flag, main=("-c", SLOW_TO_LIST))
  )
  assert [code for code, _ in found] == [0, 0], found
  # Not for as long as one waits for a process that is gone.
  assert time.monotonic() - began < 2 * whole + 60
  assert "another process cannot read it" in found[0][1]
  assert "resuming from step 4: 2 steps are lost" in found[0][1]
  assert many_processes.rows(workdir) == straight
  assert (workdir / "damaged" / str(SAVED)).is_dir()
