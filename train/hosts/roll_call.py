"""The processes of a run find each other before JAX connects them.

Process 0 listens at the coordinator's address; the others connect and identify
themselves. JAX's own coordination aborts with a stack trace if a process is
missing, and does not report which one.
"""

import contextlib
import json
import selectors
import socket
import time
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

from common.errors import HostError, UserError

TICK = 0.2  # seconds between checks of the clock
_SEND = 5.0  # seconds after which a blocked send fails
LAST_WORDS = 2.0  # seconds for the other side to read the last message
_MAX_LINE = 2**16
AGAIN = (
  "start all processes again with the same command: the run resumes from its"
  " last checkpoint"
)


class Place(NamedTuple):
  """The position of a process in its run.

  coordinator: HOST:PORT of process 0, reachable from all processes.
  local_device_ids: the devices that this process uses, or None for all.
  """

  coordinator: str
  num_processes: int
  process_id: int
  local_device_ids: tuple[int, ...] | None = None


class Peer:
  """A connection that carries JSON objects, one per line.

  step, place: the step and position that the other side reported last.
  """

  def __init__(self, connection: socket.socket):
    connection.settimeout(_SEND)
    self.socket = connection
    self.process_id = 0
    self.name = "?"
    self.step: int | None = None
    self.place = "?"
    self.done = False
    self.heard = time.monotonic()
    self._rest = b""

  def send(self, **message) -> None:
    """Sends a message; a failure is ignored, since silence is noticed."""
    with contextlib.suppress(OSError):
      self.socket.sendall(json.dumps(message).encode() + b"\n")

  def receive(self) -> list[dict[str, Any]]:
    """The messages received so far; blocks briefly if there are none.

    Raises:
      EOFError: the other side has closed the connection.
      ValueError: the other side does not use this protocol.
    """
    try:
      data = self.socket.recv(_MAX_LINE)
    except OSError:
      data = b""
    if not data:
      raise EOFError
    self.heard = time.monotonic()
    *lines, self._rest = (self._rest + data).split(b"\n")
    messages = [json.loads(line) for line in lines]
    strange = any(not isinstance(message, dict) for message in messages)
    if strange or len(self._rest) > _MAX_LINE:
      raise ValueError("not a process of this run")
    return messages


class Roll(NamedTuple):
  """All processes of a run, once all have connected.

  names: the host name of each process.
  peers: process 0's connections to all others, or the connection to process 0.
  """

  place: Place
  names: list[str]
  peers: list[Peer]

  def title(self, process_id: int) -> str:
    """The name of a process in messages."""
    of, name = self.place.num_processes, self.names[process_id]
    return f"process {process_id} of {of} ({name})"


def gather(
  place: Place, wait: float, facts: Callable[[], dict[str, Any]]
) -> tuple[Roll, dict[str, Any]]:
  """Waits until every process of the run has connected.

  Args:
    place: of this process.
    wait: the number of seconds to wait.
    facts: what process 0 sends to the others once all have connected.

  Returns:
    The roll, and what process 0 sent.

  Raises:
    HostError: a process did not connect; the message names it.
    UserError: the processes were started with contradictory flags.
  """
  if place.process_id == 0:
    return _call(place, wait, facts)
  return _answer(place, wait)


def _call(place, wait, facts):
  try:
    listener = _listen(place)
  except OSError as error:
    raise UserError(
      f"process 0 cannot listen at {place.coordinator}: {error.strerror}"
    ) from error
  peers: dict[int, Peer] = {}
  with listener, selectors.DefaultSelector() as selector:
    selector.register(listener, selectors.EVENT_READ)
    try:
      _collect(listener, peers, place, wait, selector)
    finally:
      for key in list(selector.get_map().values()):
        if key.data not in peers.values():
          key.fileobj.close()
  present = [peers[i] for i in sorted(peers)]
  names = [socket.gethostname(), *(peer.name for peer in present)]
  announced = {"names": names, **facts()}
  for peer in present:
    peer.send(start=announced)
  return Roll(place, names, present), announced


def _collect(listener, peers, place, wait, selector) -> None:
  """Fills `peers`, by process id, until all have connected."""
  deadline, beaten = time.monotonic() + wait, 0.0
  while len(peers) < place.num_processes - 1:
    if time.monotonic() > deadline:
      missing = set(range(1, place.num_processes)) - set(peers)
      _dismiss(peers, HostError(_missing(sorted(missing), place, wait)))
    for key, _ in selector.select(TICK):
      if key.fileobj is listener:
        connection, _ = listener.accept()
        selector.register(connection, selectors.EVENT_READ, Peer(connection))
      else:
        _hear_hello(key.data, peers, place, selector)
    if time.monotonic() - beaten > 1:
      beaten = time.monotonic()
      for peer in peers.values():
        peer.send(beat=1)


def _listen(place) -> socket.socket:
  port = int(place.coordinator.rsplit(":", 1)[1])
  if socket.has_dualstack_ipv6():
    return socket.create_server(
      ("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024
    )
  return socket.create_server(("", port), backlog=1024)


def _hear_hello(peer, peers, place, selector) -> None:
  """Identifies a new connection; unknown and closed ones are dropped."""
  try:
    messages = peer.receive()
    if not messages:
      return
    hello = messages[0]
    process_id, of = int(hello["process"]), int(hello["of"])
    peer.name = str(hello["name"])
  except (EOFError, ValueError, KeyError, TypeError):
    selector.unregister(peer.socket)
    peer.socket.close()
    for process_id in [i for i, other in peers.items() if other is peer]:
      del peers[process_id]
    return
  wrong = None
  if of != place.num_processes or not 0 < process_id < of:
    wrong = (
      f"process {process_id} ({peer.name}) was started with"
      f" --num_processes={of},"
      f" but process 0 with --num_processes={place.num_processes}"
    )
  elif process_id in peers and not _has_left(peers[process_id]):
    wrong = (
      f"process {process_id} of {of} was started twice: on"
      f" {peers[process_id].name} and on {peer.name}"
    )
  if wrong:
    _dismiss({**peers, -1: peer}, UserError(wrong))
  peer.process_id = process_id
  peers[process_id] = peer


def _has_left(peer) -> bool:
  """Whether the other side has closed the connection."""
  try:
    peer.socket.settimeout(0)
    return not peer.socket.recv(1, socket.MSG_PEEK)
  except BlockingIOError:
    return False
  except OSError:
    return True
  finally:
    peer.socket.settimeout(_SEND)


def _dismiss(peers, error: Exception) -> NoReturn:
  for peer in peers.values():
    peer.send(end=str(error), code=getattr(error, "code", 2))
  hang_up(peers.values())
  raise error


def _answer(place, wait):
  host, port = place.coordinator.rsplit(":", 1)
  address = (host.strip("[]"), int(port))
  deadline = time.monotonic() + wait
  while time.monotonic() < deadline:
    try:
      peer = Peer(socket.create_connection(address, timeout=_SEND))
    except OSError:
      time.sleep(TICK)
      continue
    peer.send(
      process=place.process_id,
      of=place.num_processes,
      name=socket.gethostname(),
    )
    announced = None
    try:
      announced = _start_of(peer, max(_SEND, deadline - time.monotonic()))
    finally:
      if announced is None:
        peer.socket.close()
    if announced is not None:
      return Roll(place, announced["names"], [peer]), announced
    time.sleep(TICK)
  raise HostError(_missing([0], place, wait, f" (at {place.coordinator})"))


def _start_of(peer, silence) -> dict[str, Any] | None:
  """What process 0 sends at the start; None if it closes or falls silent."""
  peer.socket.settimeout(silence)
  while True:
    try:
      messages = peer.receive()
    except (EOFError, ValueError):
      return None
    for message in messages:
      if "end" in message:
        kind = UserError if message["code"] == 2 else HostError
        raise kind(message["end"])
      if "start" in message:
        peer.socket.settimeout(_SEND)
        return message["start"]


def _missing(process_ids, place, wait, where="") -> str:
  ids = ", ".join(map(str, process_ids))
  noun = "process" if len(process_ids) == 1 else "processes"
  return (
    f"{noun} {ids} of {place.num_processes}{where} did not appear within"
    f" {wait:g} s (--wait_for_hosts); {AGAIN}"
  )


def hang_up(peers) -> None:
  """Closes once the other side has read, so that no message is lost."""
  deadline = time.monotonic() + LAST_WORDS
  for peer in peers:
    try:
      peer.socket.shutdown(socket.SHUT_WR)
    except OSError:
      continue
  for peer in peers:
    try:
      while (left := deadline - time.monotonic()) > 0:
        peer.socket.settimeout(left)
        if not peer.socket.recv(_MAX_LINE):
          break
    except OSError:
      pass
    peer.socket.close()
