"""What tells a process to end, and asks its run to stop in order instead.

SIGTERM, Ctrl-C, and the notices that a machine of Google's cloud is given
before it is taken away.
"""

import contextlib
import http.client
import os
import pathlib
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from common.errors import CTRL_C
from train.hosts import agreement

_SERVER = "metadata.google.internal"
_PRODUCT = pathlib.Path("/sys/class/dmi/id/product_name")
# What is asked of the server: the answer that ends the machine, and how it is
# told. One that is moved to another host (MIGRATE_…) lives on.
_NOTICES = {
  "maintenance-event": (
    "TERMINATE_ON_HOST_MAINTENANCE",
    "maintenance notice: TERMINATE_ON_HOST_MAINTENANCE",
  ),
  "preempted": ("TRUE", "preemption notice"),
}
_WAIT = 60  # seconds after which the server answers though nothing changed
_PAUSE = 1.0  # seconds between an answer and the next question
_AGAIN = 10.0  # seconds until a server that failed is asked again


@contextlib.contextmanager
def heeded(run: agreement.Agreement) -> Iterator[None]:
  """Inside, whatever tells this process to end asks `run` to stop.

  A signal once more changes nothing, but that a second Ctrl-C leaves at once.
  Before the first step Ctrl-C raises KeyboardInterrupt, as ever: there is
  nothing to save. Signals are heeded in the main thread alone, and those that
  the process ignores, it goes on to ignore.
  """
  over = threading.Event()
  with _signals(run):
    server = _metadata_server()
    for key in _NOTICES if server else ():
      threading.Thread(
        target=_poll, args=(server, key, run.ask, over), daemon=True
      ).start()
    try:
      yield
    finally:
      over.set()


@contextlib.contextmanager
def _signals(run) -> Iterator[None]:
  if threading.current_thread() is not threading.main_thread():
    yield
    return

  def handle(number: int, frame: FrameType | None) -> None:
    del frame
    if number != signal.SIGINT:
      return
    if run.step is None:
      raise KeyboardInterrupt
    run.ask(CTRL_C)

  # A handler waits until the main thread is back in Python, which may be
  # inside a compilation; what is written here is read at once.
  reader, writer = socket.socketpair()
  writer.setblocking(False)
  thread = threading.Thread(target=_listen, args=(reader, run), daemon=True)
  thread.start()
  wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
  before = {
    number: signal.signal(number, handle)
    for number in (signal.SIGTERM, signal.SIGINT)
    if signal.getsignal(number) not in (signal.SIG_IGN, None)
  }
  try:
    yield
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)
    signal.set_wakeup_fd(wakeup)
    writer.close()
    thread.join()
    reader.close()


def _listen(reader: socket.socket, run) -> None:
  """Hears the numbers of signals, until the other end is closed."""
  interrupted = False
  while numbers := reader.recv(64):
    for number in numbers:
      if number == signal.SIGTERM:
        run.ask("SIGTERM")
      if number == signal.SIGINT:
        if interrupted:
          _leave()
        interrupted = True
        if run.step is not None:
          run.ask(CTRL_C)
          _say("stops after this step and saves; Ctrl-C again leaves at once")


def _leave() -> None:
  try:
    if sys.stdout.isatty():
      os.write(sys.stdout.fileno(), b"\x1b[?25h")  # a progress bar hides it
    _say("left at once; the same command goes on from the last save")
  finally:
    os._exit(130)


def _say(line: str) -> None:
  # Past sys.stderr, whose lock a main thread that hangs may hold.
  os.write(2, f"\n{line}\n".encode())


def _metadata_server() -> str | None:
  """HOST or HOST:PORT of it; None where there is none, found without asking."""
  host = os.environ.get("GCE_METADATA_HOST")
  if host:
    return host
  try:
    product = _PRODUCT.read_text().strip()
  except OSError:
    return None
  return _SERVER if product == "Google Compute Engine" else None


def _poll(
  server: str, key: str, ask: Callable[[str], None], over: threading.Event
) -> None:
  """Asks the run to stop once a notice comes.

  One that stood already at the first answer does not count: a run started
  again before its machine is taken would stop at once, again and again.
  """
  bad, reason = _NOTICES[key]
  before = etag = None
  while not over.is_set():
    try:
      value, etag = _read(server, key, etag)
    except (OSError, http.client.HTTPException):
      over.wait(_AGAIN)
      continue
    if value == bad and before not in (None, bad):
      ask(reason)
      return
    before = value
    over.wait(_PAUSE)


def _read(server: str, key: str, etag: str | None) -> tuple[str, str | None]:
  """(value, etag) of a key, at once or when it is no longer that of `etag`."""
  query = f"wait_for_change=true&timeout_sec={_WAIT}&last_etag={etag}"
  path = f"/computeMetadata/v1/instance/{key}" + (f"?{query}" if etag else "")
  connection = http.client.HTTPConnection(server, timeout=_WAIT + 10)
  with contextlib.closing(connection):
    connection.request("GET", path, headers={"Metadata-Flavor": "Google"})
    response = connection.getresponse()
    if response.status != 200:
      raise OSError(response.reason)
    return response.read().decode().strip(), response.getheader("ETag")
