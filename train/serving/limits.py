"""The server's limits, and the rate limit of each client."""

import collections
import threading
import time
from collections.abc import Callable
from typing import NamedTuple


class Limits(NamedTuple):
  """The server's limits; a request that exceeds one is refused.

  prompt_tokens: tokens of a prompt; the model's context window also applies.
  max_tokens: the largest `max_tokens` that a request may ask for.
  rows: texts of one request, that is, its prompts times `n`.
  batch: texts that are generated at the same time.
  waiting: texts in the queue; further requests are answered 503.
  requests_per_minute: for each client address; further ones are answered 429.
  body_bytes: size of a request's body.
  pixels: of a picture, by the size that its header states.
  header_bytes: size of a request line with its headers.
  seconds_to_send: time for a client to send the headers of a request, to send
    its body, and to receive what has been sent to it.
  seconds_to_answer: time to answer a request, including its time in the queue.
  connections: open connections.
  idle_connections: connections from one address that have not yet sent a
    complete request; further ones are answered 503.
  """

  prompt_tokens: int = 8192
  max_tokens: int = 1024
  rows: int = 8
  batch: int = 16
  waiting: int = 64
  requests_per_minute: int = 120
  body_bytes: int = 2**20
  pixels: int = 2**25
  header_bytes: int = 2**14
  seconds_to_send: float = 20.0
  seconds_to_answer: float = 600.0
  connections: int = 128
  idle_connections: int = 64

  @property
  def room(self) -> int:
    """The most tokens of a prompt with its answer."""
    return self.prompt_tokens + self.max_tokens


class Rate:
  """A rate limit for each client, kept as one token bucket per client.

  A bucket holds one minute's requests and refills evenly. When more than
  `clients` buckets are kept, the one used longest ago is dropped.
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
    """Counts a request and returns 0, or returns the seconds to wait for it."""
    now, most = self.clock(), float(self.per_minute)
    with self._lock:
      level, then = self._buckets.pop(client, (most, now))
      level = min(most, level + (now - then) * most / 60)
      allowed = level >= 1
      self._buckets[client] = (level - 1 if allowed else level, now)
      if len(self._buckets) > self.clients:
        self._buckets.popitem(last=False)
    return 0.0 if allowed else (1 - level) * 60 / most
