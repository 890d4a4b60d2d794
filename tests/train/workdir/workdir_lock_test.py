"""Two runs on one workdir: real processes, killed and raced."""

import errno
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time

import forkserver
import pytest

from common.errors import UserError
from train.workdir import run_lock

ROOT = pathlib.Path(__file__).parents[3]
# Holds argv[1] and says so; ends when told to.
HOLDER = """
import errno, fcntl, os, sys
from common import errors
from train.workdir import run_lock
if "no flock" in sys.argv:
  def flock(fd, how):
    raise OSError(errno.ENOTSUP, "not supported")
  fcntl.flock = flock
if "no links" in sys.argv:
  def link(*_):
    raise OSError(errno.ENOTSUP, "not supported")
  os.link = link
try:
  lock = run_lock.hold(sys.argv[1])
except errors.UserError as error:
  sys.exit(f"error: {error}")
print("held", flush=True)
sys.stdin.readline()
lock.release()
"""
KINDS = [(), ("no flock",), ("no flock", "no links")]


def start(workdir, *how):
  return forkserver.Popen(
    [sys.executable, "-c", HOLDER, str(workdir), *how],
    cwd=ROOT,
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def said(process) -> str:
  """ "held", or the line of the refusal."""
  line = process.stdout.readline().strip()
  if line:
    return line
  _, line = process.communicate(timeout=60)
  assert process.returncode == 1 and line.count("\n") == 1, line
  return line.strip()


def end(process):
  _, wrong = process.communicate("\n", timeout=60)
  assert process.returncode == 0, wrong


@pytest.mark.parametrize("how", KINDS, ids=str)
def test_the_second_is_refused_until_the_first_ends(how, tmp_path):
  workdir = tmp_path / "a"
  first = start(workdir, *how)
  assert said(first) == "held"
  line = said(start(workdir, *how))
  host = re.escape(os.uname().nodename)
  assert re.fullmatch(
    rf"error: {workdir} is in use by process {first.pid} on host {host},"
    r" started 20\d\d-\d\d-\d\d \d\d:\d\d; stop that process or choose another"
    r" --workdir",
    line,
  )
  end(first)
  assert not workdir.exists()  # nothing was written in it
  second = start(workdir, *how)
  assert said(second) == "held"
  end(second)


@pytest.mark.parametrize("how", KINDS, ids=str)
def test_kill_9_gives_it_back_at_once(how, tmp_path):
  first = start(tmp_path, *how)
  assert said(first) == "held"
  first.send_signal(signal.SIGKILL)
  first.communicate()
  assert (tmp_path / "run.lock").exists()
  second = start(tmp_path, *how)
  assert said(second) == "held"
  end(second)
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", KINDS, ids=str)
def test_of_many_at_once_one_has_it(how, tmp_path):
  stale = tmp_path / "run.lock"
  stale.write_text(record(host="elsewhere"))
  os.utime(stale, (1e9, 1e9))
  racers = [start(tmp_path, *how) for _ in range(6)]
  lines = [said(each) for each in racers]
  assert sorted(lines)[-1] == "held" and lines.count("held") == 1, lines
  winner = racers[lines.index("held")]
  assert all(
    f"process {winner.pid} " in line for line in lines if line != "held"
  )
  end(winner)


@pytest.mark.parametrize("shuts", [True, False])
def test_of_two_threads_one_has_it(shuts, tmp_path, monkeypatch):
  if not shuts:
    monkeypatch.setattr(run_lock, "_flock", lambda fd: None)
  for turn in range(20):
    barrier, locks, errors = threading.Barrier(2), [], []

    def race(barrier=barrier, locks=locks, errors=errors):
      barrier.wait()
      try:
        locks.append(run_lock.hold(str(tmp_path / "a")))
      except UserError as error:
        errors.append(str(error))

    threads = [threading.Thread(target=race) for _ in range(2)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(locks) == len(errors) == 1, turn
    assert f"process {os.getpid()} on host" in errors[0]
    locks[0].release()
    locks[0].release()


def test_a_thread_that_asks_again_gives_up_what_it_had(tmp_path):
  first = run_lock.hold(str(tmp_path))
  second = run_lock.hold(str(tmp_path))
  first.release()  # late, and not its own any more
  assert "is in use" in said(start(tmp_path))
  second.release()
  assert list(tmp_path.iterdir()) == []


def record(**changes) -> str:
  fields = {
    "host": os.uname().nodename,
    "boot": "another",
    "pids": "another",
    "pid": 4711,
    "started": 1.7e9,
    "token": "0",
  }
  return json.dumps({**fields, **changes})


@pytest.mark.parametrize("how", KINDS, ids=str)
def test_a_live_run_of_another_host_is_named(how, tmp_path):
  """Flock may not reach it: NFS and FUSE may keep theirs to one host."""
  path = tmp_path / "run.lock"
  path.write_text(record(host="tpu-3"))
  line = said(start(tmp_path, *how))
  assert "process 4711 on host tpu-3, started 2023-11-1" in line
  assert "if it was killed, wait 60 s" in line
  assert path.read_text() == record(host="tpu-3")
  # For a minute after its last sign of life, and whatever the clocks say.
  for age in (70, -1e6):
    path.write_text(record(host="tpu-3"))
    os.utime(path, (time.time() - age,) * 2)
    taker = start(tmp_path, *how)
    assert said(taker) == "held"
    end(taker)


@pytest.mark.parametrize(
  "content",
  [b"", b"\xff\xfe", b"[1]", b"{}", b"[" * 4096, record(pid="x").encode()],
)
def test_a_file_that_is_no_record_blocks_nothing_with_flock(content, tmp_path):
  (tmp_path / "run.lock").write_bytes(content)
  run_lock.hold(str(tmp_path)).release()


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_nothing_is_written_through_a_link(link, tmp_path):
  outside, inside = tmp_path / "precious", tmp_path / "run"
  outside.write_text("precious")
  inside.mkdir()
  link(outside, inside / "run.lock")
  lock = run_lock.hold(str(inside))
  assert (inside / "run.lock").stat().st_nlink == 1
  assert not (inside / "run.lock").is_symlink()
  lock.release()
  assert outside.read_text() == "precious"


def test_it_is_renewed_while_it_is_held(tmp_path, monkeypatch):
  monkeypatch.setattr(run_lock, "_BEAT", 0.02)
  lock = run_lock.hold(str(tmp_path))
  path = tmp_path / "run.lock"
  os.utime(path, (1e9, 1e9))
  deadline = time.monotonic() + 20
  while path.stat().st_mtime < 1e9 + 1 and time.monotonic() < deadline:
    time.sleep(0.02)
  assert abs(path.stat().st_mtime - time.time()) < 60
  lock.release()


def test_a_forked_child_neither_keeps_nor_frees_it(tmp_path):
  code = """
import os, sys, time
from train.workdir import run_lock
lock = run_lock.hold(sys.argv[1])
child = os.fork()
if not child:
  lock.release()  # as what runs at exit would
  sys.stdout.write(f"{os.getpid()}\\n"); sys.stdout.flush()
  time.sleep(60)
time.sleep(60)
"""
  first = forkserver.Popen(
    [sys.executable, "-c", code, str(tmp_path)],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    text=True,
  )
  child = int(first.stdout.readline())
  try:
    assert f"process {first.pid} " in said(start(tmp_path))
    first.kill()
    first.wait()
    taker = start(tmp_path)
    assert said(taker) == "held"
    end(taker)
  finally:
    os.kill(child, signal.SIGKILL)
    first.stdout.close()


def test_a_workdir_that_cannot_be_written_is_one_line(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(UserError, match="file is a file, not a folder"):
    run_lock.hold(str(tmp_path / "file"))
  with pytest.raises(UserError, match="cannot be written: .*Not a directory"):
    run_lock.hold(str(tmp_path / "file" / "a"))
  with pytest.raises(UserError, match="cannot be written: .*/run.lock: Is a d"):
    (tmp_path / "b" / "run.lock").mkdir(parents=True)
    run_lock.hold(str(tmp_path / "b"))
  with pytest.raises(UserError, match="/sys/fs/a cannot be written: "):
    run_lock.hold("/sys/fs/a")


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
  code = f"""
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
{HOLDER}"""
  done = subprocess.run(
    [sys.executable, "-c", code, str(tmp_path / "a")],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 1
  assert done.stderr.count("\n") == 1
  assert os.strerror(errno.EFBIG) in done.stderr
  assert not (tmp_path / "a").exists()


def main(workdir, steps):
  return forkserver.Popen(
    [
      sys.executable,
      "-m",
      "train.main",
      "--config=configs/textbook/linear_regression.py:smoke",
      f"--config.total_steps={steps}",
      f"--workdir={workdir}",
    ],
    cwd=ROOT,
    env={**os.environ, "XLA_FLAGS": ""},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def test_train_main_twice(tmp_path):
  first = main(tmp_path, 10**8)
  path = tmp_path / "metrics.jsonl"
  deadline = time.monotonic() + 120
  while not (path.exists() and path.stat().st_size):
    assert first.poll() is None and time.monotonic() < deadline
    time.sleep(0.1)
  config = (tmp_path / "config.json").read_bytes()
  second = main(tmp_path, 20)
  _, line = second.communicate(timeout=120)
  assert second.returncode == 2
  assert line.startswith(
    f"error: {tmp_path} is in use by process {first.pid} on"
  )
  assert line.count("\n") == 1
  assert (tmp_path / "config.json").read_bytes() == config
  first.kill()
  first.communicate()
  third = main(tmp_path, 20)
  _, wrong = third.communicate(timeout=120)
  assert third.returncode == 0, wrong
  assert not (tmp_path / "run.lock").exists()
