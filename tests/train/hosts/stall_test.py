"""A run that hangs ends, says where every thread is and who holds it up."""

import re
import signal
import sys
import threading
import time
import types

import pytest
from many_processes import HINDERED, end, flag_of, rows, start, wait_until

from common.errors import HostError
from configs.textbook import linear_regression
from train.hosts import roll_call, stall


class Clock:
  """time.monotonic, moved by hand."""

  def __init__(self, monkeypatch):
    self.now = 100.0
    stand_in = types.SimpleNamespace(monotonic=lambda: self.now)
    monkeypatch.setattr(stall, "time", stand_in)

  def look(self, found: stall.Stall, steps, seconds: float) -> bool:
    """What is found at the end of so many seconds of looks."""
    for _ in range(round(seconds * 5)):
      self.now += 0.2
      stalls = found.look(steps)
    return stalls


def test_counted_from_the_first_finished_step_to_the_last(monkeypatch):
  clock = Clock(monkeypatch)
  found = stall.Stall(10.0)
  for steps in ([None, None], [7, None], [7, 7]):  # they compile
    assert not clock.look(found, steps, 30)
  assert not clock.look(found, [8, 7], 9.8)
  assert not clock.look(found, [8, 8], 9.8)
  assert clock.look(found, [8, 8], 0.6)
  assert round(found.seconds) == 10
  # Anyone's step is one.
  assert not clock.look(found, [8, 9], 5)
  # This process was stopped, as by Ctrl-Z: it has not waited.
  clock.now += 3600
  assert not found.look([8, 9])
  assert clock.look(found, [8, 9], 10)


def test_zero_is_never(monkeypatch):
  clock = Clock(monkeypatch)
  found = stall.Stall(0)
  found.look([1])
  assert not clock.look(found, [2], 1e4)


def line(steps, places) -> str:
  names = [f"host{i}" for i in range(len(steps))]
  roll = roll_call.Roll(roll_call.Place("", len(steps), 0), names, [])
  return stall.describe(roll, steps, places, 1800.3)


def test_who_is_behind_is_named():
  found = line([42, 42, 41, 42], ["a.py:1 (f)"] * 2 + ["b.py:2 (g)"] * 2)
  assert found == (
    "process 2 of 4 (host2) has done no step for 1800 s (--stall_timeout), it"
    f" is at step 41, in b.py:2 (g); the others wait at step 42;"
    f" {roll_call.AGAIN}"
  )
  found = line([43, 41, 41, 42], ["a", "b", "c", "d"])
  assert found.startswith(
    "process 1 of 4 (host1), process 2 of 4 (host2) have done no step for"
    " 1800 s (--stall_timeout), they are at step 41, process 1 of 4 (host1) in"
    " b, process 2 of 4 (host2) in c; the others wait at steps 42 to 43;"
  )
  assert "it is before the first step, in b; the others wait at step 3" in line(
    [3, None], ["a", "b"]
  )


def test_who_is_elsewhere_is_named_where_all_are_at_one_step():
  found = line([41] * 9, ["loop"] * 7 + ["data", "loop"])
  assert found.startswith(
    "no process of 9 has done a step for 1800 s (--stall_timeout); all are at"
    " step 41: process 7 of 9 (host7) in data, 8 processes in loop;"
  )
  assert line([41, 41], ["loop"] * 2).startswith(
    "no process of 2 has done a step for 1800 s (--stall_timeout); all are at"
    " step 41: in loop;"
  )


def test_the_place_is_the_innermost_line_of_ours():
  """Of the main thread, which waits in somebody else's code."""
  found = []

  def wait():
    asked = threading.Thread(target=lambda: found.append(stall.place()))
    asked.start()
    asked.join()

  wait()
  assert re.fullmatch(r"/.*/threading\.py:\d+ \(\w+\)", found[0])
  source = "def f(wait):\n  wait()\n"
  names = {}
  exec(compile(source, f"{stall._ROOT}/train/x.py", "exec"), names)
  names["f"](wait)
  assert found[1] == "train/x.py:2 (f)"


def regression(tmp_path) -> str:
  config = linear_regression.get_config("smoke")
  config.total_steps = 10_000
  config.checkpoint.every_steps = 0
  config.evals = {}
  return flag_of(config, tmp_path)


def wait_for_step(step: int, process, workdir) -> None:
  path = workdir / "metrics.jsonl"

  def there():
    assert process.poll() is None, process.communicate()
    return path.exists() and any(row["step"] >= step for row in rows(workdir))

  wait_until(there, 120)


def left_alike(process) -> float:
  """Seconds until it has ended."""
  began = time.monotonic()
  process.wait(timeout=60)
  return time.monotonic() - began


def stacks(said: str) -> list[str]:
  """Of faulthandler: that of each thread."""
  pieces = re.split(r"^(?:Current t|T)hread 0x.*:\n", said, flags=re.M)
  return pieces[1:]


@pytest.mark.slow
def test_data_that_never_comes_ends_all(tmp_path):
  """Process 1 waits for it, process 0 for process 1."""
  processes = start(
    2,
    tmp_path / "run",
    regression(tmp_path),
    "--stall_timeout=3",
    devices=2,
    main=HINDERED,
    HANG_IN="1",
    HANG_AT="6",
  )
  wait_for_step(4, processes[0], tmp_path / "run")
  seconds = [left_alike(process) for process in processes]
  assert 2 < sum(seconds) < 3 + 10
  for i, (code, said) in enumerate(end(processes)):
    assert code == HostError.code, said
    last = said.splitlines()[-1]
    assert last.startswith("error: no process of 2 has done a step for 3 s"), (
      last
    )
    assert "all are at step 5: " in last
    assert re.search(
      r"process 1 of 2 \(\S+\) in input_pipeline/batching/device.py", last
    )
    assert re.search(r"process 0 of 2 \(\S+\) in train/loop.py", last)
    assert roll_call.AGAIN in last
    threads = stacks(said)
    assert any("in hindered" in stack for stack in threads) == (i == 1)
    assert any(" in fit\n" in stack for stack in threads), said


def test_one_process_ends_likewise(tmp_path):
  (process,) = start(
    1,
    tmp_path / "run",
    regression(tmp_path),
    "--stall_timeout=2",
    devices=1,
    main=HINDERED,
    HANG_IN="0",
    HANG_AT="6",
  )
  wait_for_step(4, process, tmp_path / "run")
  assert 1 < left_alike(process) < 2 + 10
  ((code, said),) = end([process])
  assert code == HostError.code
  last = said.splitlines()[-1]
  assert re.fullmatch(
    r"error: no step was done for 2 s \(--stall_timeout\): at step 5, in"
    r" input_pipeline/batching/device\.py:\d+ \(prefetch\); the same command"
    r" resumes from the last checkpoint",
    last,
  )
  assert any("in hindered" in stack for stack in stacks(said))


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGSTOP")
@pytest.mark.slow
def test_a_process_that_is_stopped_ends_the_others(tmp_path):
  processes = start(
    2, tmp_path / "run", regression(tmp_path), "--host_timeout=3", devices=2
  )
  wait_for_step(4, processes[0], tmp_path / "run")
  processes[1].send_signal(signal.SIGSTOP)
  assert 2 < left_alike(processes[0]) < 3 + 10
  processes[1].kill()
  code, said = end(processes)[0]
  assert code == HostError.code
  last = said.splitlines()[-1]
  assert re.match(
    r"error: process 1 of 2 \(\S+\) has not responded for 3 s;", last
  )
  assert any(" in fit\n" in stack for stack in stacks(said)), said
