"""Whether all processes of a run still live: none is left waiting for another.

The connections of the roll call stay open. Each end says every few seconds
that it is alive; a broken or a silent one is a process lost, and process 0
tells the rest. A process that ends with an error says why before it goes.
"""

import os
import selectors
import sys
import threading
import time
from collections.abc import Callable
from typing import NoReturn

from train import roll_call
from train.errors import HostError

_BEAT = 5.0  # seconds between signs of life, at most


class Watch:
  """A thread that ends the process when another one is lost.

  The main thread may be inside a collective that never returns, so the thread
  itself says the line and leaves.
  """

  def __init__(
    self,
    roll: roll_call.Roll,
    timeout: float,
    leave: Callable[[str, int], NoReturn] | None = None,
  ):
    """Starts to watch.

    Args:
      roll: from `roll_call.gather`.
      timeout: seconds of silence after which a process counts as lost.
      leave: given the line and the exit code; prints and exits by default.
    """
    self._roll = roll
    self._timeout = timeout
    self._leave = leave or _leave
    self._own_end: tuple[str, int] | None = None
    self._done = self._said_done = False
    self._beaten = 0.0
    self._over = threading.Event()
    for peer in roll.peers:
      peer.heard = time.monotonic()
    threading.Thread(target=self._run, name="watch", daemon=True).start()

  def finish(self) -> None:
    """Returns once every process has come this far."""
    self._done = True
    self._over.wait()

  def fail(self, line: str, code: int) -> None:
    """Tells the others why this process ends."""
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
        # After what has come was heard: this process may have been stopped.
        self._notice_silence()
    roll_call.hang_up(self._roll.peers)

  def _hear(self, peer) -> None:
    try:
      messages = peer.receive()
    except (EOFError, ValueError):
      self._lose(peer, "has ended, or its connection broke")
      return
    for message in messages:
      if "end" in message:
        self._end(message["end"], message["code"], peer)
      peer.done |= "done" in message

  def _speak(self) -> None:
    peers, first = self._roll.peers, self._roll.place.process_id == 0
    if self._own_end is not None:
      line, code = self._own_end
      who = self._roll.title(self._roll.place.process_id)
      self._tell(f"{who} ended: {line}", code)
      self._over.set()
      return
    every_peer_done = all(peer.done for peer in peers)
    if self._done and (every_peer_done or not first) and not self._said_done:
      self._said_done = True
      for peer in peers:
        peer.send(done=1)
    if self._said_done and every_peer_done:
      self._over.set()
    if time.monotonic() - self._beaten > min(_BEAT, self._timeout / 5):
      self._beaten = time.monotonic()
      for peer in peers:
        peer.send(beat=1)

  def _notice_silence(self) -> None:
    for peer in self._roll.peers:
      silent = time.monotonic() - peer.heard
      if silent > self._timeout and not self._over.is_set():
        self._lose(peer, f"has not been heard of for {silent:.0f} s")

  def _lose(self, peer, what: str) -> None:
    line = f"{self._roll.title(peer.process_id)} {what}; {roll_call.AGAIN}"
    self._end(line, HostError.code, peer)

  def _end(self, line: str, code: int, source) -> None:
    if self._own_end is not None or self._over.is_set():
      return  # this process is on its way out
    self._tell(line, code, source)
    self._over.set()
    self._leave(line, code)

  def _tell(self, line: str, code: int, source=None) -> None:
    others = [peer for peer in self._roll.peers if peer is not source]
    for peer in others:
      peer.send(end=line, code=code)
    roll_call.hang_up(others)


def _leave(line: str, code: int) -> NoReturn:
  """Says the line and ends the process, whatever its other threads do."""
  try:
    if sys.stdout.isatty():
      sys.stdout.write("\x1b[?25h\n")  # a progress bar hides the cursor
    sys.stdout.flush()
    print(f"error: {line}", file=sys.stderr, flush=True)
  finally:
    os._exit(code)
