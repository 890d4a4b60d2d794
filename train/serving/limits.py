"""What a server accepts at most, and how often of whom."""

import collections
import threading
import time
from collections.abc import Callable
from typing import NamedTuple


class Limits(NamedTuple):
  """What is more than this is refused.

  prompt_tokens: of a prompt; the model's window is another limit.
  max_tokens: that a request may ask to be written.
  rows: texts of one request: prompts times n.
  batch: texts that are written at once.
  waiting: texts that wait for their turn; then it is 503.
  requests_per_minute: of one client; then it is 429.
  body_bytes: of a request.
  header_bytes: of a request.
  seconds_to_send: in which a request has to arrive, and a client to take what
    it is sent.
  seconds_to_answer: in which it is answered, waiting included.
  connections: at once.
  """

  prompt_tokens: int = 8192
  max_tokens: int = 1024
  rows: int = 8
  batch: int = 16
  waiting: int = 64
  requests_per_minute: int = 120
  body_bytes: int = 2**20
  header_bytes: int = 2**14
  seconds_to_send: float = 20.0
  seconds_to_answer: float = 600.0
  connections: int = 128


class Rate:
  """So many requests a minute of each client: a bucket of tokens for each.

  A bucket holds a minute's requests and fills evenly. At most `clients` are
  remembered: the one that was seen longest ago is forgotten.
  """

  def __init__(
    self,
    per_minute: int,
    clock: Callable[[], float] = time.monotonic,
    clients: int = 10_000,
  ):
    self.per_minute, self.clock, self.clients = per_minute, clock, clients
    self._lock = threading.Lock()
    self._buckets: collections.OrderedDict = collections.OrderedDict()

  def wait(self, client: str) -> float:
    """0, and the request counts; or the seconds until one more is allowed."""
    now, most = self.clock(), float(self.per_minute)
    with self._lock:
      level, then = self._buckets.pop(client, (most, now))
      level = min(most, level + (now - then) * most / 60)
      allowed = level >= 1
      self._buckets[client] = (level - 1 if allowed else level, now)
      if len(self._buckets) > self.clients:
        self._buckets.popitem(last=False)
    return 0.0 if allowed else (1 - level) * 60 / most
