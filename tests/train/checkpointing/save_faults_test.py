"""Kills in a save, and saves that fail: what was saved before stays, and the
same command goes on.
"""

import contextlib
import os
import pathlib
import random
import re
import resource
import shutil
import subprocess
import sys
import threading
import time

import forkserver
import jax
import killed_saves
import many_processes
import numpy as np
import pytest
from tiers import slow_but

from common import errors
from train import build, loop, trained
from train.checkpointing import checkpoint

KEPT = ["10", "8"]
# States of 30 MB, which take a while to write, and of 6 MB.
LARGE, MEDIUM = (1600, 1600), (700, 700)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
  """ "straight" is a whole run, "seed" the same until it is to be killed."""
  root = tmp_path_factory.mktemp("runs")
  killed_saves.train(root / "seed", killed_saves.config_of(killed_saves.SAVED))
  killed_saves.train(root / "straight", killed_saves.config_of())
  return root


def bits(workdir) -> list[bytes]:
  state = trained.load_state(str(workdir))
  return [np.asarray(x).tobytes() for x in jax.tree.leaves(state)]


def same(workdir, straight) -> None:
  assert bits(workdir) == bits(straight)
  assert many_processes.rows(workdir) == many_processes.rows(straight)


def picked(operations: list[str]) -> dict[int, str]:
  """Some operations of a save, of each kind one, by their places in it."""
  directory = f"{killed_saves.VICTIM}{checkpoint.UNFINISHED}"
  kinds = [
    rf"os.mkdir {directory}",
    r"open .*/metadata",  # the record
    r"os.rename .*/state.*",
    rf"os.rename {directory}",  # from here on it counts
    r"os.remove 2/state/.*",  # the old one is removed by half
  ]
  return {
    next(
      i for i, line in enumerate(operations) if re.fullmatch(kind, line)
    ): kind
    for kind in kinds
  }


@pytest.mark.slow
def test_a_kill_at_any_operation_of_a_save(runs, tmp_path):
  config = killed_saves.config_of()
  flag = many_processes.flag_of(config, tmp_path)
  whole = shutil.copytree(runs / "seed", tmp_path / "whole")
  operations = killed_saves.save(whole, flag)
  same(whole, runs / "straight")
  named = operations.index(
    f"os.rename {killed_saves.VICTIM}{checkpoint.UNFINISHED}"
  )
  for at, kind in picked(operations).items():
    workdir = shutil.copytree(runs / "seed", tmp_path / f"at {at}")
    assert len(killed_saves.save(workdir, flag, at=at)) == at, kind
    said = killed_saves.train(workdir, config)
    assert not any("damaged" in line for line in said), kind
    *_, killed, restored = killed_saves.noted(workdir, "resume")
    assert killed == killed_saves.SAVED
    assert restored == (killed_saves.VICTIM if at > named else killed), kind
    saves = killed_saves.noted(workdir, "save")
    assert saves[saves.index(8) :] == [8, 10]
    assert at > named or saves[-3] == killed_saves.VICTIM
    assert killed_saves.left(workdir) == KEPT, kind
    same(workdir, runs / "straight")


@pytest.mark.slow
def test_a_kill_while_arrays_are_written(tmp_path):
  config = killed_saves.config_of(8, LARGE)
  flag = many_processes.flag_of(config, tmp_path)
  straight, killed = tmp_path / "straight", tmp_path / "killed"
  killed_saves.train(killed, {**config, "total_steps": killed_saves.SAVED})
  shutil.copytree(killed, straight)
  killed_saves.train(straight, config)
  killed_saves.save(killed, flag, delay=random.uniform(0.01, 0.15))
  killed_saves.train(killed, config)
  assert killed_saves.left(killed) == ["6", "8"]
  same(killed, straight)


class Full:
  """A small disk, where the machine lets a test mount one."""

  def __init__(self, folder):
    self.folder = folder
    command = ["mount", "-t", "tmpfs", "-o", "size=24m", "none", str(folder)]
    if os.getuid() or subprocess.run(command, capture_output=True).returncode:
      pytest.skip("no disk can be mounted here")

  def begin(self):
    with contextlib.suppress(OSError), (self.folder / "filler").open("wb") as f:
      while True:
        f.write(bytes(2**16))
        f.flush()

  def end(self):
    (self.folder / "filler").unlink(missing_ok=True)

  def close(self):
    subprocess.run(["umount", "-l", str(self.folder)], check=True)


class Limited:
  """No file may grow beyond what an array needs."""

  def __init__(self, folder):
    self.before = resource.getrlimit(resource.RLIMIT_FSIZE)

  def begin(self):
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, self.before[1]))

  def end(self):
    resource.setrlimit(resource.RLIMIT_FSIZE, self.before)

  close = end


class Blocked:
  """A file where the checkpoints were."""

  def __init__(self, folder):
    self.folder, self.away = folder, folder.with_name("away")

  def begin(self):
    self.folder.rename(self.away)
    self.folder.write_text("")

  def end(self):
    if self.away.exists():
      self.folder.unlink()
      self.away.rename(self.folder)

  close = end


class Gone(Blocked):
  """The checkpoints vanish while one is written, and come back."""

  def begin(self):
    deadline = time.monotonic() + 10
    while not list(self.folder.glob(f"*{checkpoint.UNFINISHED}/state*")):
      assert time.monotonic() < deadline
    self.folder.rename(self.away)

  def end(self):
    if self.away.exists():
      shutil.rmtree(self.folder, ignore_errors=True)
      self.away.rename(self.folder)
      checkpoint.sweep(self.folder)  # what was there when it went

  close = end


def train(workdir, fault, *, first: int, last: int, on_error: str):
  """A run of 16 steps, saved every 4th; (lines, the error or None).

  The fault begins once `first` steps are told, and ends once `last` are.
  """
  config = killed_saves.config_of(16, MEDIUM)
  config["checkpoint"] = dict(every_steps=4, keep=2, on_error=on_error)
  said, problem = [], None
  run = build.run(config, str(workdir), said.append)
  broken = fault(workdir / "checkpoints")
  try:
    for report in loop.fit(run):
      said.append(report.step)
      if report.step == first and fault is Gone:
        broken.begin()
      # A save in flight, failed or not, is over by the next step.
      saving = run.checkpoints._finalize_thread.get()
      if saving is not None:
        threading.Thread.join(saving, timeout=60)
      if report.step == first and fault is not Gone:
        broken.begin()
      if report.step == last:
        broken.end()
  except errors.SaveError as error:
    problem = error
  finally:
    broken.end()
    left = killed_saves.left(workdir)
    loadable = bits(workdir) if problem is None else None
    broken.close()
  return said, problem, left, loadable


FAULTS = [Full, Limited, Blocked, Gone]


@pytest.mark.parametrize("fault", slow_but([Full], FAULTS))
def test_a_run_that_goes_on_saves_again_once_it_can(fault, tmp_path, capfd):
  # Gone begins when the save of 8 is in flight, the others before it.
  first = 9 if fault is Gone else 7
  said, problem, left, found = train(
    tmp_path / "run", fault, first=first, last=13, on_error="continue"
  )
  assert problem is None
  lines = [x for x in said if "could not be saved" in str(x)]
  failed = 1 if fault is Gone else 2  # that makes the folder anew
  assert len(lines) == failed, said
  for line in lines:
    assert line.startswith("the checkpoint could not be saved: ")
    assert "\n" not in line and len(line) < 500
  if fault is not Blocked:
    # It is told by the step after the one that found it over.
    assert said.index(lines[0]) - said.index(9) in (-1, 1), said
  if fault in (Full, Limited):
    assert all(line.endswith("the last one is from step 4") for line in lines)
    assert "space" in lines[0] or "too large" in lines[0]
  assert [x for x in said if isinstance(x, int)] == list(range(1, 17))
  assert "16" in left and not [x for x in left if not x.isdigit()]
  killed_saves.train(tmp_path / "straight", killed_saves.config_of(16, MEDIUM))
  assert found == bits(tmp_path / "straight")
  assert capfd.readouterr().err == ""


@pytest.mark.parametrize("fault", slow_but([Gone], FAULTS))
def test_a_run_that_stops_stops_at_the_next_step(fault, tmp_path):
  first = 9 if fault is Gone else 7
  said, problem, left, _ = train(
    tmp_path / "run", fault, first=first, last=99, on_error="stop"
  )
  assert problem.code == 74
  assert str(problem).startswith("the checkpoint could not be saved: ")
  assert said[-1] in (8, 9, 10) and "4" in left
  assert not any(x.endswith(checkpoint.UNFINISHED) for x in left)


@pytest.mark.parametrize("fault", slow_but([Limited], [Full, Limited, Blocked]))
def test_a_run_whose_last_save_fails_has_not_succeeded(fault, tmp_path):
  said, problem, left, _ = train(
    tmp_path / "run", fault, first=15, last=99, on_error="continue"
  )
  assert problem.code == 74
  assert "the last one is from step 12; fix the cause" in str(problem)
  assert said[-1] == 16 and left == ["12", "8"]


@pytest.mark.parametrize("on_error", slow_but(["stop"], ["stop", "continue"]))
def test_what_a_user_sees(on_error, tmp_path):
  """The command, under a limit of the shell; and again without one."""
  config = killed_saves.config_of(8, (1000, 1000))
  config["checkpoint"] = dict(every_steps=3, keep=2, on_error=on_error)
  workdir = tmp_path / "run"
  command = [
    *(sys.executable, "-m", "train.main", f"--workdir={workdir}"),
    many_processes.flag_of(config, tmp_path),
  ]
  # The limit of the shell would also hold for compiled programs.
  cached = ("JAX_COMPILATION_CACHE_DIR",)
  arguments = dict(
    cwd=killed_saves.ROOT,
    capture_output=True,
    text=True,
    timeout=120,
    env={k: v for k, v in os.environ.items() if k not in cached},
  )
  limited = ["bash", "-c", 'ulimit -f 1000; exec "$@"', "-", *command]
  done = subprocess.run(limited, **arguments)
  assert done.stderr.count("\n") == 1, done.stderr
  line = done.stderr.strip()
  assert done.returncode == 74
  assert line.startswith("error: the checkpoint could not be saved: ")
  assert "File too large; there is none yet; fix the cause, then resume" in line
  told = done.stdout.count("the checkpoint could not be saved: ")
  assert told == (2 if on_error == "continue" else 0)
  assert killed_saves.left(workdir) == []
  if on_error == "stop":
    return
  done = forkserver.run(command, **arguments)
  assert (done.returncode, done.stderr) == (0, "")
  assert killed_saves.left(workdir) == ["6", "8"]


@pytest.mark.slow
def test_damaged_ones_move_to_another_disk(tmp_path):
  """Checkpoints on a disk of their own, as on many clusters."""
  workdir = tmp_path / "run"
  config = killed_saves.config_of(4)
  disk = pathlib.Path("/dev/shm")
  if not disk.is_dir() or disk.stat().st_dev == tmp_path.stat().st_dev:
    pytest.skip("no second disk")
  workdir.mkdir()
  other = disk / f"tessera-test-{os.getpid()}"
  other.mkdir()
  try:
    (workdir / "checkpoints").symlink_to(other)
    killed_saves.train(workdir, config)
    (other / "4" / "data" / "metadata").unlink()
    said = killed_saves.train(workdir, config)
    assert any("resuming from step 2: 2 steps are lost" in x for x in said)
    assert os.listdir(workdir / "damaged") == ["4"]
    assert killed_saves.left(workdir) == ["2", "4"]
  finally:
    shutil.rmtree(other)
