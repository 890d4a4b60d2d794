"""--profile: a trace that holds the steps asked for, and bad values."""

import os
import pathlib
import sys

import forkserver
import jax
import pytest

from common.errors import UserError
from train.measuring import profile

ROOT = pathlib.Path(__file__).parents[3]


def main(workdir, *flags, config="linear_regression"):
  command = [
    *(sys.executable, "-m", "train.main"),
    f"--config={config}:smoke",
    f"--workdir={workdir}",
    "--config.total_steps=12",
    *flags,
  ]
  env = {**os.environ, "XLA_FLAGS": ""}
  return forkserver.run(
    command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300
  )


def steps_of(directory):
  """{step: events below it} of the one trace, by JAX's own reader."""
  (path,) = pathlib.Path(directory).glob("plugins/profile/*/*.xplane.pb")
  planes = jax.profiler.ProfileData.from_file(str(path)).planes
  events = [e for p in planes for line in p.lines for e in line.events]
  found = {
    dict(e.stats)["step_num"]: (e.start_ns, e.end_ns)
    for e in events
    if e.name == "train" and "step_num" in dict(e.stats)
  }
  executed = [
    e.start_ns
    for e in events
    if "ThunkExecutor" in e.name or "Execute" in e.name
  ]
  return found, executed


@pytest.mark.slow
def test_the_trace_holds_the_steps_asked_for(tmp_path):
  done = main(tmp_path, "--profile=4:3")
  assert done.returncode == 0, done.stderr
  assert f"--logdir={tmp_path}/profile" in done.stdout
  steps, executed = steps_of(tmp_path / "profile")
  assert sorted(steps) == [4, 5, 6]
  # The programs themselves are in it, from the first step to after the last.
  assert min(executed) >= min(start for start, _ in steps.values())
  assert max(executed) >= max(start for start, _ in steps.values())
  # The same command when these steps are past: a line, not an error.
  done = main(tmp_path, "--profile=4:3")
  assert done.returncode == 0, done.stderr
  assert "this start began after step 4" in done.stdout
  assert len(list((tmp_path / "profile").rglob("*.xplane.pb"))) == 1


@pytest.mark.parametrize("first, steps", [(0, 2), (10, 2)])
def test_the_first_and_the_last_steps_can_be_traced(tmp_path, first, steps):
  trace = profile.Trace(str(tmp_path), *profile.parse(f"{first}:{steps}", 12))
  program = jax.jit(lambda x: x + 1)
  for step in range(12):
    trace.before(step)
    with jax.profiler.StepTraceAnnotation("train", step_num=step):
      update = program(step)
    trace.after(step, update)
  trace.close()
  assert sorted(steps_of(tmp_path)[0]) == list(range(first, first + steps))


def test_a_run_that_ends_early_still_writes_its_trace(tmp_path):
  trace = profile.Trace(str(tmp_path), 1, 5)
  for step in range(3):
    trace.before(step)
    with jax.profiler.StepTraceAnnotation("train", step_num=step):
      pass
    trace.after(step, ())
  trace.close()
  assert sorted(steps_of(tmp_path)[0]) == [1, 2]


@pytest.mark.parametrize(
  "text", ["5", "5:", ":5", "a:b", "-1:2", "5:0", "1:2:3", "1.5:2", ""]
)
def test_what_is_not_start_and_steps_is_told(text):
  with pytest.raises(UserError, match="is not START:STEPS") as error:
    profile.parse(text, 100)
  assert "\n" not in str(error.value)


def test_steps_past_the_end_are_told():
  assert profile.parse("95:5", 100) == (95, 5)
  with pytest.raises(UserError, match="the run has 100 steps"):
    profile.parse("96:5", 100)


@pytest.mark.parametrize(
  "flag", ["--profile=ten", "--profile=11:2", "--peak_flops=-1", "--watts=x"]
)
def test_a_bad_value_is_one_line_and_exit_code_2(tmp_path, flag):
  done = main(tmp_path / "run", flag)
  assert done.returncode == 2
  (line,) = done.stderr.strip().splitlines()
  assert line.startswith("error: ")
  assert flag.split("=")[0].strip("-") in line
  assert not (tmp_path / "run").exists()
