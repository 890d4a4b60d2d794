"""The tf.data service: other machines read, decode and augment for a run.

  python -m input_pipeline.data_service --role=dispatcher --port=5050
  python -m input_pipeline.data_service --role=worker --dispatcher=HOST:5050
  python -m train.main --config=... --config.data.service=grpc://HOST:5050

Start one dispatcher and any number of workers; workers may join and leave
during a run. One worker reads the rows of a step and applies the ops. The
batches and their order are those of a run without the service, whichever worker
made them and wherever the run was resumed. A worker opens the data under the
URI of the run, so the same files must be readable at the same paths there.

By default both can be reached from this machine only. --host=NAME, the name or
address of this machine on the network, makes them reachable from other
machines. TensorFlow asks for no credentials, and a client can make the servers
read and write files: use --host on a private network only.
"""

import functools
import json
import os
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from absl import flags

from common import cli

_ROLE = flags.DEFINE_enum(
  "role", None, ["dispatcher", "worker"], "The role of this server."
)
_PORT = flags.DEFINE_integer(
  "port",
  0,
  "The port to listen on; 0 takes any free port, which is printed.",
  0,
  65535,
)
_HOST = flags.DEFINE_string(
  "host",
  "127.0.0.1",
  "The name or address of this machine on the network. With the default, only "
  "this machine can connect.",
)
_DISPATCHER = flags.DEFINE_string(
  "dispatcher", None, "The dispatcher's HOST:PORT; required for a worker."
)
# Seconds for which a worker tries to reach the dispatcher.
_WAIT = 60.0
_BEAT_MS = 2_000
# After so long without a heartbeat the dispatcher drops a worker.
_LOST_MS = 20_000
# The number of runs whose sources a worker keeps open.
_RUNS = 8


def main(argv: list[str]) -> None:
  """Starts a server, and returns when it is stopped."""
  del argv
  if _ROLE.value is None:
    raise cli.UserError(
      "the flag --role=dispatcher or --role=worker is required"
    )
  worker = _ROLE.value == "worker"
  if worker != (_DISPATCHER.value is not None):
    raise cli.UserError(
      "--role=worker needs --dispatcher=HOST:PORT"
      if worker
      else "--dispatcher is valid with --role=worker only"
    )
  if _HOST.value in ("", "0.0.0.0", "::", "[::]"):
    raise cli.UserError(
      f"--host={_HOST.value} is not the name or address of one machine; give "
      "the one by which others reach this machine"
    )
  if not worker and _PORT.value:
    _check_free(_PORT.value)
  try:
    _worker() if worker else _dispatcher()
  except ValueError as error:
    raise cli.UserError(str(error)) from error


def _dispatcher() -> None:
  tf = _tensorflow()
  service = tf.data.experimental.service
  try:
    server = service.DispatchServer(
      service.DispatcherConfig(port=_PORT.value, worker_timeout_ms=_LOST_MS)
    )
  except tf.errors.OpError as error:
    raise ValueError(f"--port={_PORT.value}: {_first_line(error)}") from None
  _serve(server, int(server.target.rpartition(":")[2]))


def _worker() -> None:
  _wait_for(_DISPATCHER.value)
  tf = _tensorflow()
  _register(tf)
  service = tf.data.experimental.service
  port = _PORT.value or _free_port()
  try:
    server = service.WorkerServer(
      service.WorkerConfig(
        dispatcher_address=_DISPATCHER.value,
        worker_address=f"{_HOST.value}:{port}",
        port=port,
        heartbeat_interval_ms=_BEAT_MS,
      )
    )
  except tf.errors.OpError as error:
    raise ValueError(f"--port={port}: {_first_line(error)}") from None
  _serve(server, port)


def _tensorflow():
  from input_pipeline.tensorflow_cpu import import_tensorflow

  return import_tensorflow()


def _register(tf: Any) -> None:
  """Names `_rows` so that a client's graph can call it by the name."""
  from input_pipeline.batching.service_stream import TOKEN

  with tf.Graph().as_default():
    found = tf.numpy_function(
      _rows, [tf.constant(""), tf.constant(0, tf.int64)], [tf.int64], False
    )
    token = found[0].op.get_attr("token").decode()
  if token != TOKEN:
    raise ValueError(
      f"this version of TensorFlow names its first function {token!r}, not "
      f"{TOKEN!r}; the data service does not work with it"
    )


def _rows(settings: bytes, step: Any) -> list[Any]:
  """The fields of a step's rows, for the run that the settings describe."""
  return _opened(settings)(int(step))


_OPENING = threading.Lock()


def _opened(settings: bytes) -> Callable[[int], list[Any]]:
  with _OPENING:  # Two steps at once must not open the data twice.
    return _open(settings)


@functools.lru_cache(_RUNS)
def _open(settings: bytes) -> Callable[[int], list[Any]]:
  from input_pipeline.batching import added_tokens, pipeline, tf_stream
  from input_pipeline.batching.service_stream import FAULT

  try:
    given = json.loads(settings)
    ops, count = given.pop("ops"), given.pop("examples")
    tokens = given.pop("tokens")
    examples, plan, _ = pipeline.training(**given)
    if examples.length != count:
      raise ValueError(
        f"the data has {examples.length:,} examples here, but {count:,} on the "
        "machine of the run"
      )
    examples = added_tokens.of_examples(examples, ops)
    if tf_stream.content_of(examples) != tokens:
      raise ValueError("the tokenizer here differs from that of the run")
    steps = tf_stream.steps(examples, plan, ops)
  except (ValueError, TypeError, KeyError) as error:
    name = f"{socket.gethostname()}, process {os.getpid()}"
    raise ValueError(f"{FAULT} ({name}): {error}") from None

  def leaves(step: int) -> list[Any]:
    rows = steps.read(step)
    return [rows[name] for name in steps.signature]

  return leaves


def _serve(server: Any, port: int) -> None:
  """Prints the server's address, and keeps it until it is stopped."""
  local = _HOST.value in ("127.0.0.1", "localhost", "::1")
  if local and not _keep_to_loopback(port):
    print(
      "warning: TensorFlow listens on every address of this machine, and port "
      f"{port} could not be closed to the network; use a firewall",
      file=sys.stderr,
    )
  # A shell's background jobs are started with it ignored.
  signal.signal(signal.SIGINT, signal.default_int_handler)
  print(f"{_ROLE.value} on {_HOST.value}:{port}", flush=True)
  try:
    while True:
      time.sleep(3600)
  except KeyboardInterrupt:
    print("stopped", file=sys.stderr)
  del server  # Held until here.


def _keep_to_loopback(port: int) -> bool:
  """Closes the listening sockets of a port to all but this machine.

  TensorFlow can listen on every address only. A socket bound to the loopback
  device (Linux) takes no connection that comes in by another.
  """
  option = getattr(socket, "SO_BINDTODEVICE", None)
  if option is None:
    return False
  closed = False
  for listening in _listening(port):
    with listening:
      try:
        listening.setsockopt(socket.SOL_SOCKET, option, b"lo\0")
      except OSError:
        return False
      closed = True
  return closed


def _listening(port: int) -> Iterator[socket.socket]:
  """Duplicates of this process's listening sockets of a port."""
  for name in os.listdir("/proc/self/fd"):
    try:
      found = socket.socket(fileno=os.dup(int(name)))
    except OSError:
      continue  # Not a socket, or closed meanwhile.
    try:
      listens = struct.unpack(
        "i", found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN, 4)
      )[0]
      mine = listens and found.getsockname()[1] == port
    except (OSError, IndexError, TypeError):
      mine = False
    if mine:
      yield found
    else:
      found.close()


def _check_free(port: int) -> None:
  """Raises UserError if the port is taken; TensorFlow would share it."""
  with socket.socket(socket.AF_INET6) as probe:
    try:
      probe.bind(("::", port))
    except OSError as error:
      raise cli.UserError(f"--port={port}: {error.strerror}") from None


def _free_port() -> int:
  with socket.socket() as probe:
    probe.bind(("", 0))
    return probe.getsockname()[1]


def _wait_for(dispatcher: str) -> None:
  """Raises ValueError if none answers; TensorFlow would wait for ever."""
  host, _, port = dispatcher.rpartition(":")
  if not host or not port.isdigit() or not 0 < int(port) < 2**16:
    raise ValueError(f"--dispatcher={dispatcher} is not HOST:PORT")
  end = time.monotonic() + _WAIT
  while True:
    try:
      socket.create_connection((host.strip("[]"), int(port)), 5).close()
      return
    except OSError as error:
      if time.monotonic() > end:
        raise ValueError(
          f"--dispatcher={dispatcher} does not answer:"
          f" {error.strerror or error}"
        ) from None
      time.sleep(0.5)


def _first_line(error: Exception) -> str:
  return (str(getattr(error, "message", error)).splitlines() or ["failed"])[0]


if __name__ == "__main__":
  sys.exit(cli.run(main))
