"""Children of the fork server are processes like any other."""

import os
import signal
import subprocess
import sys

import forkserver
import pytest


def python(code, *arguments, **settings):
  settings = {"stdout": subprocess.PIPE, "text": True, **settings}
  return forkserver.Popen([sys.executable, "-c", code, *arguments], **settings)


def said(process) -> str:
  return process.communicate(timeout=60)[0].strip()


def test_arguments_streams_folder_and_exit_code(tmp_path):
  code = """
import os, sys
print(sys.argv, os.getcwd(), input(), flush=True)
print("and this", file=sys.stderr)
sys.exit(7)
"""
  settings = dict(stdin=subprocess.PIPE, stderr=subprocess.STDOUT)
  process = python(code, "a", "b c", cwd=tmp_path, **settings)
  assert process._forked
  found, _ = process.communicate("line\n", timeout=60)
  assert found == f"['-c', 'a', 'b c'] {tmp_path} line\nand this\n"
  assert process.returncode == 7


def test_what_jax_reads_at_its_import_is_the_childs():
  code = """
import jax, os
folder = jax.config.jax_compilation_cache_dir
print(jax.device_count(), folder, "HOME" in os.environ)
"""
  env = {**os.environ, "JAX_COMPILATION_CACHE_DIR": "/nowhere"}
  env["XLA_FLAGS"] = "--xla_force_host_platform_device_count=3"
  del env["HOME"]
  process = python(code, env=env)
  assert process._forked
  assert said(process) == "3 /nowhere False"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_signal_ends_it(number):
  process = python("print('begun', flush=True); import time; time.sleep(60)")
  assert process.stdout.readline() == "begun\n"
  assert process.poll() is None
  os.kill(process.pid, number)
  assert process.wait(60) == -number
  process.stdout.close()


def test_ctrl_c_is_an_exception():
  code = """
import time
try:
  print("begun", flush=True)
  time.sleep(60)
except KeyboardInterrupt:
  print("stopped")
"""
  process = python(code)
  assert process.stdout.readline() == "begun\n"
  process.send_signal(signal.SIGINT)
  assert said(process) == "stopped"


def test_a_group_of_its_own():
  process = python("import os; print(os.getpgrp())", start_new_session=True)
  assert said(process) == str(process.pid)


def test_a_time_limit_and_a_failure():
  sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
  with pytest.raises(subprocess.TimeoutExpired):
    forkserver.run(sleep, timeout=0.2)
  with pytest.raises(subprocess.CalledProcessError):
    forkserver.run([sys.executable, "-c", "raise SystemExit(3)"], check=True)


# A test of the same worker may have started JAX before.
@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")
@pytest.mark.parametrize(
  ("command", "settings"),
  [
    (["true"], {}),
    ([sys.executable, "-u", "-c", ""], {}),
    ([sys.executable, "-c", ""], {"preexec_fn": os.getpid}),
    ([sys.executable, "-c", ""], {"env": {"PYTHONHASHSEED": "1"}}),
    ([sys.executable, "-c", ""], {"env": {**os.environ, "JAX_X": "1"}}),
    (f"{sys.executable} -c ''", {"shell": True}),
  ],
)
def test_anything_else_starts_cold(command, settings):
  process = forkserver.Popen(command, **settings)
  assert not process._forked
  assert process.wait(60) == 0
