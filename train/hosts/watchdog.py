"""Watches that all processes of a run are alive, and ends all if one is lost.

The connections of the roll call stay open. Each side reports every few seconds
that it is alive, and its step. A broken or silent connection means that a
process is lost, and process 0 notifies the others; so it does if no process
makes progress. A process that ends with an error sends the reason first.
"""

import contextlib
import faulthandler
import os
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import NoReturn

from common.errors import HostError
from train.hosts import agreement, roll_call, stall

_BEAT = 5.0  # seconds between signs of life, at most
_LEAVE = 10.0  # seconds that printing the last line may take


def alone(stall_timeout: float) -> "Watch":
  """The Watch of a run of one process."""
  place = roll_call.Place("", 1, 0)
  roll = roll_call.Roll(place, [socket.gethostname()], [])
  return Watch(roll, timeout=_BEAT, stall_timeout=stall_timeout)


class Watch:
  """A thread that ends this process if another one is lost or the run stalls.

  The main thread may be inside a collective that never returns, so the thread
  itself prints the line and exits.

  agreement: of all processes, on when to stop.
  """

  def __init__(
    self,
    roll: roll_call.Roll,
    timeout: float,
    stall_timeout: float = 0.0,
    leave: Callable[[str, int], NoReturn] | None = None,
  ):
    """Starts the thread.

    Args:
      roll: from `roll_call.gather`.
      timeout: the seconds of silence after which a process counts as lost.
      stall_timeout: the seconds without a step of any process after which the
        run counts as stalled; 0 disables it.
      leave: (line, exit code); prints the line and exits by default.
    """
    place = roll.place
    self.agreement = agreement.Agreement(
      place.num_processes, place.process_id, self._say
    )
    self._roll = roll
    self._timeout = timeout
    self._stall = stall.Stall(stall_timeout)
    self._beat_every = min(_BEAT, timeout / 5, (stall_timeout or timeout) / 5)
    self._leave = leave or _leave
    self._own_end: tuple[str, int] | None = None
    self._done = self._said_done = False
    self._beaten = 0.0
    self._over = threading.Event()
    for peer in roll.peers:
      peer.heard = time.monotonic()
    threading.Thread(target=self._run, name="watch", daemon=True).start()

  def finish(self) -> None:
    """Returns once every process has called it."""
    self._done = True
    if not self._roll.peers:
      self._over.set()
    self._over.wait()

  def fail(self, line: str, code: int) -> None:
    """Sends the others the reason why this process ends."""
    self._own_end = (line, code)
    self._over.wait(roll_call.LAST_WORDS + 10 * roll_call.TICK)

  def _run(self) -> None:
    with selectors.DefaultSelector() as selector:
      for peer in self._roll.peers:
        selector.register(peer.socket, selectors.EVENT_READ, peer)
      while not self._over.is_set():
        for key, _ in selector.select(roll_call.TICK):
          self._hear(key.data)
        self._speak()
        # Only after reading: this process itself may have been suspended.
        self._notice_silence()
        self._notice_stall()
    roll_call.hang_up(self._roll.peers)

  def _hear(self, peer) -> None:
    try:
      messages = peer.receive()
    except (EOFError, ValueError):
      self._lose(peer, "has ended or its connection was broken")
      return
    for message in messages:
      if "end" in message:
        stacks = message.get("stacks", False)
        self._end(message["end"], message["code"], stacks, peer)
      if "place" in message:
        peer.step, peer.place = message["step"], message["place"]
      peer.done |= "done" in message
      self.agreement.hear(peer.process_id, message)

  def _speak(self) -> None:
    peers, first = self._roll.peers, self._roll.place.process_id == 0
    if self._own_end is not None:
      line, code = self._own_end
      who = self._roll.title(self._roll.place.process_id)
      self._report(f"{who} ended: {line}", code, stacks=False)
      self._over.set()
      return
    every_peer_done = all(peer.done for peer in peers)
    if self._done and (every_peer_done or not first) and not self._said_done:
      self._said_done = True
      self._say(done=1)
    if self._said_done and every_peer_done:
      self._over.set()
    self.agreement.speak()
    if time.monotonic() - self._beaten > self._beat_every:
      self._beaten = time.monotonic()
      self._say(beat=1, step=self.agreement.step, place=stall.place())

  def _say(self, **message) -> None:
    for peer in self._roll.peers:
      peer.send(**message)

  def _notice_silence(self) -> None:
    for peer in self._roll.peers:
      silent = time.monotonic() - peer.heard
      if silent > self._timeout and not self._over.is_set():
        what = f"has not responded for {silent:.0f} s"
        self._lose(peer, what, stacks=True)

  def _notice_stall(self) -> None:
    peers = self._roll.peers
    if self._roll.place.process_id != 0 or self._over.is_set():
      return
    steps = [self.agreement.step, *(peer.step for peer in peers)]
    if self._stall.look(steps):
      places = [stall.place(), *(peer.place for peer in peers)]
      seconds = self._stall.seconds
      line = stall.describe(self._roll, steps, places, seconds)
      self._end(line, HostError.code, stacks=True)

  def _lose(self, peer, what: str, stacks: bool = False) -> None:
    line = f"{self._roll.title(peer.process_id)} {what}; {roll_call.AGAIN}"
    self._end(line, HostError.code, stacks, peer)

  def _end(self, line: str, code: int, stacks: bool, source=None) -> None:
    if self._own_end is not None or self._over.is_set():
      return  # this process is on its way out
    if stacks:
      # Before the others exit, which breaks what this process waits for.
      _say_stacks()
    self._report(line, code, stacks, source)
    self._over.set()
    self._leave(line, code)

  def _report(self, line: str, code: int, stacks: bool, source=None) -> None:
    others = [peer for peer in self._roll.peers if peer is not source]
    for peer in others:
      peer.send(end=line, code=code, stacks=stacks)
    roll_call.hang_up(others)


def _say_stacks() -> None:
  """Prints the stack of every thread to stderr."""
  with contextlib.suppress(Exception):  # a notebook's stderr is not a file
    faulthandler.dump_traceback(sys.stderr, all_threads=True)


def _leave(line: str, code: int) -> NoReturn:
  """Prints the line and exits, even if other threads hang."""
  # Another thread may hold the lock of the output stream.
  late = threading.Timer(_LEAVE, os._exit, [code])
  late.daemon = True
  late.start()
  try:
    if sys.stdout.isatty():
      sys.stdout.write("\x1b[?25h\n")  # a progress bar hides the cursor
    sys.stdout.flush()
    print(f"error: {line}", file=sys.stderr, flush=True)
  finally:
    os._exit(code)
