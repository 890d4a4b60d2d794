"""Turns requests to terminate a process into an orderly stop of its run.

The requests are SIGTERM, Ctrl-C, and the maintenance and preemption notices of
Google Cloud's metadata server.
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
# Key of the metadata server: (the value that announces the end of the machine,
# the reason to report). A machine that is migrated (MIGRATE_…) continues.
_NOTICES = {
  "maintenance-event": (
    "TERMINATE_ON_HOST_MAINTENANCE",
    "maintenance notice: TERMINATE_ON_HOST_MAINTENANCE",
  ),
  "preempted": ("TRUE", "preemption notice"),
}
_WAIT = 60  # seconds after which the server answers without a change
_PAUSE = 1.0  # seconds between an answer and the next request
_AGAIN = 10.0  # seconds until a failed request is repeated


@contextlib.contextmanager
def heeded(run: agreement.Agreement) -> Iterator[None]:
  """A context in which a request to terminate makes `run` stop instead.

  Repeated signals change nothing, except that a second Ctrl-C exits
  immediately. Before the first step Ctrl-C raises KeyboardInterrupt as usual,
  since there is nothing to save. Signals are handled only if this is the main
  thread; signals that the process ignores stay ignored.
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

  # A Python handler runs only once the main thread is back in Python, but it
  # may be inside a compilation; what is written here is read immediately.
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
  """Reads the numbers of signals until the other end is closed."""
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
          _say(
            "stopping after this step and saving; Ctrl-C again exits at once"
          )


def _leave() -> None:
  try:
    if sys.stdout.isatty():
      os.write(sys.stdout.fileno(), b"\x1b[?25h")  # a progress bar hides it
    _say(
      "exited immediately; the same command resumes from the last checkpoint"
    )
  finally:
    os._exit(130)


def _say(line: str) -> None:
  # Bypasses sys.stderr, whose lock a hanging main thread may hold.
  os.write(2, f"\n{line}\n".encode())


def _metadata_server() -> str | None:
  """HOST or HOST:PORT of the server; None outside Google Cloud."""
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
  """Asks the run to stop when a notice arrives.

  A notice that was present in the first answer is ignored: a run that is
  restarted before its machine is taken would otherwise stop again and again.
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
  """(value, etag) of a key, immediately or once it differs from `etag`."""
  query = f"wait_for_change=true&timeout_sec={_WAIT}&last_etag={etag}"
  path = f"/computeMetadata/v1/instance/{key}" + (f"?{query}" if etag else "")
  connection = http.client.HTTPConnection(server, timeout=_WAIT + 10)
  with contextlib.closing(connection):
    connection.request("GET", path, headers={"Metadata-Flavor": "Google"})
    response = connection.getresponse()
    if response.status != 200:
      raise OSError(response.reason)
    return response.read().decode().strip(), response.getheader("ETag")
