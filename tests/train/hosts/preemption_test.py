"""Told to end, a run saves, leaves, and goes on as if nothing had been."""

import contextlib
import functools
import http.server
import signal
import subprocess
import sys
import textwrap
import threading
import time
import urllib.parse

import forkserver
import jax
import numpy as np
import pytest
from many_processes import (
  HINDERED,
  ROOT,
  end,
  flag_of,
  rows,
  start,
  wait_until,
)

from common.errors import Preempted
from configs.textbook import linear_regression
from train import trained
from train.hosts import agreement, preemption

STEPS = 60
# Else a run might be complete before all have agreed to stop.
SLOWLY = dict(main=HINDERED, SECONDS="0.04")
MAINTENANCE = "TERMINATE_ON_HOST_MAINTENANCE"


class Metadata(http.server.BaseHTTPRequestHandler):
  """Google's metadata server, as far as its documentation goes."""

  def do_GET(self):
    server = self.server
    url = urllib.parse.urlparse(self.path)
    query = dict(urllib.parse.parse_qsl(url.query))
    if self.headers["Metadata-Flavor"] != "Google":
      return self.answer(403, "no such header")
    if server.failures:
      server.failures -= 1
      return self.answer(503, "later")
    prefix, _, key = url.path.rpartition("/")
    if prefix != "/computeMetadata/v1/instance" or key not in server.values:
      return self.answer(404, "no such key")
    with server.changed:
      if query.get("wait_for_change") == "true":
        server.changed.wait_for(
          lambda: server.closed or self.etag(key) != query["last_etag"],
          timeout=float(query["timeout_sec"]),
        )
      value = server.values[key]
    server.served.append((key, value))
    return self.answer(200, value + "\n", self.etag(key))

  def etag(self, key):
    return f"{key}-{self.server.values[key]}"

  def answer(self, code, body, etag=None):
    with contextlib.suppress(OSError):
      self.send_response(code)
      if etag:
        self.send_header("ETag", etag)
      self.end_headers()
      self.wfile.write(body.encode())

  def log_message(self, *args):
    pass


class Server(http.server.ThreadingHTTPServer):
  """It answers with `values`; `served` is what it has said."""

  def __init__(self):
    super().__init__(("localhost", 0), Metadata)
    self.values = {"maintenance-event": "NONE", "preempted": "FALSE"}
    self.changed = threading.Condition()
    self.closed, self.failures = False, 0
    self.served: list[tuple[str, str]] = []
    self.address = f"localhost:{self.server_port}"

  def change(self, key, value):
    with self.changed:
      self.values[key] = value
      self.changed.notify_all()

  def tell(self, key, value):
    """Changes a value, and returns once somebody has been told."""
    self.served.clear()
    self.change(key, value)
    wait_until(lambda: (key, value) in self.served)


@pytest.fixture
def metadata():
  server = Server()
  thread = threading.Thread(target=server.serve_forever, args=(0.05,))
  thread.start()
  yield server
  with server.changed:
    server.closed = True
    server.changed.notify_all()
  server.shutdown()
  thread.join()
  server.server_close()


def regression():
  """Compiled in no time, yet with moments and an order of the data."""
  config = linear_regression.get_config("smoke")
  with config.ignore_type():
    config.batch_size = 8
  config.total_steps = STEPS
  config.log_every_steps = 5
  config.checkpoint.every_steps = 25
  config.evals.val.every_steps = 25
  config.model.hidden = (8,)
  config.optimizer = dict(name="adam", lr=0.01)
  return config


def told(workdir, step: int, process) -> None:
  """Waits until metrics.jsonl has a row of `step` or a later one."""
  path = workdir / "metrics.jsonl"

  def there():
    assert process.poll() is None, process.communicate()
    return path.exists() and any(row["step"] >= step for row in rows(workdir))

  wait_until(there, 120)


def stopped(found, reason: str) -> int:
  """At which step all have stopped, in order and with one line each."""
  steps = set()
  for code, said in found:
    assert code == 85, said
    start = f"stopped by {reason} after step "
    (line,) = (line for line in said.splitlines() if "stopped by" in line)
    assert line.startswith(start), said
    assert line.endswith(
      ", which is saved; the same command resumes from there"
    )
    assert "rror" not in said and "Traceback" not in said
    steps.add(int(line.removeprefix(start).split(",")[0]))
  (step,) = steps
  return step


def same(workdir, straight) -> None:
  """To the bit: what was written, and the last state."""
  assert rows(workdir) == rows(straight)
  assert rows(straight)[-1]["step"] == STEPS
  a, b = (trained.load_state(str(path)) for path in (workdir, straight))
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def test_one_process_goes_on_where_it_was_stopped(tmp_path, metadata):
  """By SIGTERM while it compiles, then by a notice of maintenance."""
  straight, shared = tmp_path / "straight", tmp_path / "shared"
  flag = flag_of(regression(), tmp_path)

  def one(workdir, **how):
    host = metadata.address
    return start(1, workdir, flag, devices=1, GCE_METADATA_HOST=host, **how)

  assert [code for code, _ in end(one(straight))] == [0]
  (first,) = one(shared, **SLOWLY)
  assert "parameters" in first.stdout.readline()
  first.send_signal(signal.SIGTERM)
  assert stopped(end([first]), "SIGTERM") < 10
  (second,) = one(shared, **SLOWLY)
  told(shared, 15, second)
  metadata.change("maintenance-event", MAINTENANCE)
  step = stopped(end([second]), f"maintenance notice: {MAINTENANCE}")
  assert 15 <= step < STEPS
  assert trained.load(str(shared)).step == step
  # The machine has not been taken yet: the notice still stands.
  (third,) = one(shared)
  assert [code for code, _ in end([third])] == [0]
  same(shared, straight)


@pytest.mark.slow
def test_one_of_two_is_told_and_both_go_on(tmp_path):
  straight, shared = tmp_path / "straight", tmp_path / "shared"
  flag = flag_of(regression(), tmp_path)
  two = functools.partial(start, 2)
  codes = [code for code, _ in end(two(straight, flag, devices=2))]
  assert codes == [0, 0]
  running = two(shared, flag, devices=2, **SLOWLY)
  told(shared, 10, running[0])
  began = time.monotonic()
  for _ in range(3):
    running[1].send_signal(signal.SIGTERM)
    time.sleep(0.1)
  found = end(running)
  seconds = time.monotonic() - began
  step = stopped(found, "SIGTERM")
  assert 10 <= step < STEPS
  assert seconds < 15  # a preempted TPU has 30
  assert trained.load(str(shared)).step == step
  codes = [code for code, _ in end(two(shared, flag, devices=2))]
  assert codes == [0, 0]
  same(shared, straight)


def run(body: str) -> subprocess.Popen:
  """A process that trains by `body`, between `run` and its exit code."""
  code = f"""
import hashlib, sys, threading, time
from common import cli
from train.hosts import preemption, watchdog
from common.errors import Preempted
watcher = watchdog.alone(0)
run = watcher.agreement
def hang_in_c():  # as in a compilation: no handler of Python's runs
  hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
try:
  with preemption.heeded(run):
{textwrap.indent(textwrap.dedent(body), "    ")}
except BaseException as error:
  sys.exit(cli.tell(error))
"""
  return forkserver.Popen(
    [sys.executable, "-c", code],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


LOOP = """
for step in range(100_000):
  reason = run.stop(step)
  if reason:
    raise Preempted(reason, step)
  if step == 3:
    print("begun", flush=True)
  time.sleep(0.01)
"""


def test_ctrl_c_is_orderly():
  process = run(LOOP)
  process.stdout.readline()
  process.send_signal(signal.SIGINT)
  ((code, said),) = end([process])
  assert code == 130
  first, line = said.split("\n")[1:3]
  assert (
    first == "stopping after this step and saving; Ctrl-C again exits at once"
  )
  assert line.startswith("stopped by Ctrl-C after step ")
  assert line.endswith(", which is saved; the same command resumes from there")


@pytest.mark.parametrize("before", ["", "run.stop(0)"])
def test_ctrl_c_twice_leaves_at_once(before):
  """Even where Python's own handlers would never run."""
  process = run(f"{before}\nprint('begun', flush=True)\nhang_in_c()")
  process.stdout.readline()
  time.sleep(0.3)  # the next line has begun
  process.send_signal(signal.SIGINT)
  time.sleep(0.3)
  assert process.poll() is None
  process.send_signal(signal.SIGINT)
  began = time.monotonic()
  ((code, said),) = end([process])
  assert time.monotonic() - began < 5
  assert code == 130, said
  assert (
    "exited immediately; the same command resumes from the last checkpoint"
    in said
  )
  assert ("stopping after this step" in said) == bool(before)


def test_ctrl_c_before_the_first_step_has_nothing_to_save():
  process = run("print('begun', flush=True)\nthreading.Event().wait(60)")
  process.stdout.readline()
  process.send_signal(signal.SIGINT)
  ((code, said),) = end([process])
  assert code == 130
  assert said == (
    "error: interrupted; the same command resumes from the last checkpoint\n"
  )


@contextlib.contextmanager
def heeded():
  """What `heeded` asks, of an agreement of one process."""
  run = agreement.Agreement(1, 0, lambda **message: None)
  with preemption.heeded(run):
    yield run


@pytest.fixture
def no_server(monkeypatch):
  monkeypatch.setattr(preemption, "_metadata_server", lambda: None)


def test_sigterm_asks_and_the_old_handler_comes_back(no_server):
  def old(number, frame):
    raise AssertionError

  before = signal.signal(signal.SIGTERM, old)
  try:
    with heeded() as run:
      assert run.stop(0) is None
      for _ in range(3):
        signal.raise_signal(signal.SIGTERM)
      wait_until(lambda: run.stop(1) == "SIGTERM")
    assert signal.getsignal(signal.SIGTERM) is old
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.set_wakeup_fd(-1) == -1
    # What is ignored (by nohup, in a shell's background) stays so.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with heeded() as run:
      signal.raise_signal(signal.SIGTERM)
      time.sleep(0.2)
      assert run.stop(1) is None
    # Only the main thread may have handlers.
    in_thread = threading.Thread(target=heeded().__enter__)
    in_thread.start()
    in_thread.join()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
  finally:
    signal.signal(signal.SIGTERM, before)


def test_a_notice_that_is_new_and_ends_the_machine(metadata, monkeypatch):
  monkeypatch.setenv("GCE_METADATA_HOST", metadata.address)
  monkeypatch.setattr(preemption, "_PAUSE", 0.01)
  monkeypatch.setattr(preemption, "_AGAIN", 0.01)
  metadata.failures = 3
  metadata.change("maintenance-event", MAINTENANCE)
  with heeded() as run:
    wait_until(lambda: ("maintenance-event", MAINTENANCE) in metadata.served)
    metadata.tell("maintenance-event", "NONE")
    metadata.tell("maintenance-event", "MIGRATE_ON_HOST_MAINTENANCE")
    assert run.stop(1) is None
    metadata.tell("maintenance-event", MAINTENANCE)
    wait_until(
      lambda: run.stop(2) == f"maintenance notice: {MAINTENANCE}", seconds=3
    )
  with heeded() as run:
    wait_until(lambda: ("preempted", "FALSE") in metadata.served)
    metadata.tell("preempted", "TRUE")
    wait_until(lambda: run.stop(2) == "preemption notice", seconds=3)


def test_elsewhere_nobody_is_asked(monkeypatch, tmp_path):
  product = tmp_path / "product_name"
  monkeypatch.delenv("GCE_METADATA_HOST", raising=False)
  monkeypatch.setattr(preemption, "_PRODUCT", product)
  monkeypatch.setattr(preemption, "_poll", None)  # it must not be called
  for name in (None, "Latitude 7490\n", ""):
    if name is not None:
      product.write_text(name)
    assert preemption._metadata_server() is None
    threads = threading.active_count()
    with heeded():
      assert threading.active_count() == threads + 1  # it hears signals
  product.write_text("Google Compute Engine\n")
  assert preemption._metadata_server() == "metadata.google.internal"


def test_a_server_that_is_silent_delays_nothing(monkeypatch):
  import socket

  with socket.create_server(("localhost", 0)) as silent:
    address = f"localhost:{silent.getsockname()[1]}"
    monkeypatch.setenv("GCE_METADATA_HOST", address)
    began = time.monotonic()
    with heeded() as run:
      assert run.stop(0) is None
    assert time.monotonic() - began < 5  # the server would be waited for longer


def test_what_is_told_and_the_exit_code():
  assert Preempted("SIGTERM", 120).code == 85
  assert Preempted("Ctrl-C", 120).code == 130
  assert str(Preempted("SIGTERM", 120)) == (
    "stopped by SIGTERM after step 120, which is saved; the same command"
    " resumes from there"
  )
  assert not isinstance(Preempted("SIGTERM", 120), Exception)
