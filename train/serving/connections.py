"""One connection: its deadlines, its share of the server, and strict headers.

uvicorn parses HTTP with h11 and waits without limit for a client that sends or
reads slowly. h11 also accepts some forms that proxies interpret differently,
which lets one request be smuggled inside another; those are refused here.
"""

import asyncio
import json
import re
from collections.abc import Callable
from http import HTTPStatus

from uvicorn.protocols.http.h11_impl import H11Protocol

from train.serving.limits import Limits
from train.serving.protocol import ApiError

SECURITY_HEADERS = {
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
  "cache-control": "no-store",
}
# A line that ends without a CR, or that continues the line before it, and a
# list of lengths.
_AMBIGUOUS = re.compile(
  rb"(?<!\r)\n|\n[ \t]|\ncontent-length[ \t]*:[^\r\n]*,", re.IGNORECASE
)
_LENGTH = re.compile(rb"\ncontent-length[ \t]*:", re.IGNORECASE)
_END = re.compile(rb"\n\r?\n")
# How old a connection is when it first counts as idle, in seconds: the requests
# of many connections that are opened at once have not been read at once.
_SETTLE = 0.5
# How long a refused connection stays open, in seconds: closing it while bytes
# of the client are unread would discard the answer on its way.
_LINGER = 1.0
# The same where the rest of a request's body is discarded, and the most bytes
# of it that are.
_LINGER_BODY, _MOST_DISCARDED = 5.0, 2**26


def fault(received: bytes, most: int) -> tuple[int, str] | None:
  """What is wrong with the headers received so far, as (status, message).

  Args:
    received: the bytes from the request line on.
    most: bytes allowed up to the end of the headers.
  """
  end = _END.search(received)
  size = end.end() if end else len(received)
  if size > most:
    return 431, f"the headers exceed {most} bytes"
  head = received[: end.start() + 1] if end else received
  if _AMBIGUOUS.search(head) or len(_LENGTH.findall(head)) > 1:
    return 400, "the headers are malformed"
  return None


class _Answering:
  """The transport of a connection, as uvicorn's cycle of one answer uses it.

  Closing it closes the connection by `Connection.close`.
  """

  def __init__(self, connection: "Connection"):
    self.write, self.close = connection.transport.write, connection.close
    self.is_closing = connection.transport.is_closing


class Connection(H11Protocol):
  """uvicorn's connection with deadlines and limits.

  The application limits the time for a request's body itself, so that it can
  answer 408. All other deadlines close the connection without an answer.

  Args:
    limits: see Limits.
    log: called with a line for each request that is refused here.
    args, kwargs: uvicorn's own.
  """

  def __init__(
    self, *args, limits: Limits, log: Callable[[str], None], **kwargs
  ):
    super().__init__(*args, **kwargs)
    self.limits, self.log, self.refused = limits, log, False
    self._timer: asyncio.TimerHandle | None = None
    self._discarded = 0

  def connection_made(self, transport) -> None:
    """Accepts a connection, or refuses one that exceeds a limit."""
    super().connection_made(transport)
    self._abort_after(self.limits.seconds_to_send)
    if len(self.connections) > 2 * self.limits.connections:
      self.transport.abort()  # not even refusals may accumulate
      return
    if len(self._served()) > self.limits.connections:
      self.refuse(503, "too many connections are open")
    else:
      self.loop.call_later(_SETTLE, self._check_idle)

  def connection_lost(self, exc) -> None:
    """Cancels the deadline."""
    self._cancel()
    super().connection_lost(exc)

  def data_received(self, data: bytes) -> None:
    """Passes bytes on; what follows a refused request is discarded."""
    if self.refused:
      self._discarded += len(data)
      if self._discarded > _MOST_DISCARDED:
        self.transport.abort()
      return
    super().data_received(data)
    if not self._between() and not self.flow.write_paused:
      self._cancel()

  def handle_events(self) -> None:
    """Checks the headers of a request before h11 parses them."""
    if self.refused:
      return
    if self._between():
      wrong = fault(self.conn.trailing_data[0], self.limits.header_bytes)
      if wrong:
        self.refuse(*wrong)
        return
    super().handle_events()
    if self.cycle is not None:  # its application has not begun yet
      self.cycle.transport = _Answering(self)

  def on_response_complete(self) -> None:
    """Sets the deadline for the next request, and for sending this answer."""
    super().on_response_complete()
    if self._between() and not self.refused:
      self._abort_after(self.limits.seconds_to_send)

  def pause_writing(self) -> None:
    """Sets the deadline for a client that does not read."""
    super().pause_writing()
    self._abort_after(self.limits.seconds_to_send)

  def resume_writing(self) -> None:
    """Cancels that deadline."""
    super().resume_writing()
    if not self._between():
      self._cancel()

  def close(self) -> None:
    """Closes after an answer; discards the rest of the request's body first."""
    if self.refused or not self.cycle.more_body:
      self.transport.close()
      return
    self.refused = True
    self.flow.resume_reading()
    self._linger(_LINGER_BODY)

  def shutdown(self) -> None:
    """Closes the connection as soon as its answer has been sent."""
    if self.refused:
      self.transport.abort()
    else:
      super().shutdown()

  def send_400_response(self, msg: str) -> None:
    """Answers what h11 cannot parse."""
    del msg
    self.refuse(400, "the request is malformed")

  def refuse(self, status: int, message: str) -> None:
    """Sends an error, discards what else arrives, and closes soon after."""
    self.refused = True
    if self.cycle is not None:
      begun = self.cycle.response_started and not self.cycle.response_complete
      self.cycle.disconnected = True  # the application's answer is dropped
      self.cycle.message_event.set()
      if begun:
        self.transport.abort()
        return
    headers = {
      **SECURITY_HEADERS,
      **({"retry-after": "5"} if status == 503 else {}),
    }
    content = json.dumps(ApiError(status, message).body())
    lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
    self.transport.write(
      f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
      f"content-type: application/json\r\ncontent-length: {len(content)}\r\n"
      f"connection: close\r\n{''.join(lines)}\r\n{content}".encode()
    )
    self._linger(_LINGER)
    self.log(f"{self.address()} {status} {message}")

  def idle(self) -> bool:
    """Whether the client has not yet sent a complete request."""
    return self._between() or self.cycle.more_body

  def address(self) -> str:
    """The client's IP address, or "unknown"."""
    return self.client[0] if self.client else "unknown"

  def _served(self) -> list["Connection"]:
    return [c for c in self.connections if not c.refused]

  def _check_idle(self) -> None:
    """Refuses this connection if it and too many others are idle."""
    if self.refused or self.transport.is_closing() or not self.idle():
      return
    own = [c for c in self._served() if c.address() == self.address()]
    if sum(c.idle() for c in own) > self.limits.idle_connections:
      self.refuse(503, "too many idle connections are open from this address")

  def _between(self) -> bool:
    """Whether the headers of a request are the next thing to arrive."""
    return self.cycle is None or self.cycle.response_complete

  def _linger(self, seconds: float) -> None:
    """Ends the answer, and leaves the client time to read it and to close."""
    if self.transport.can_write_eof():
      self.transport.write_eof()
    self._abort_after(seconds)

  def _abort_after(self, seconds: float) -> None:
    self._cancel()
    self._timer = self.loop.call_later(seconds, self.transport.abort)

  def _cancel(self) -> None:
    if self._timer is not None:
      self._timer.cancel()
      self._timer = None
