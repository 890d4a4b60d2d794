"""A socket's bytes, so many at most and in so many seconds at most."""

import socket
import time


class TooMuchError(Exception):
  """More bytes have come than were allowed."""


class BoundedReader(socket.SocketIO):
  """What a client sends: a slow one times out, a wordy one is TooMuchError.

  `allow` begins anew; a timeout of the socket alone would begin anew with each
  byte.
  """

  def __init__(self, connection: socket.socket):
    super().__init__(connection, "rb")
    # makefile() counts who still uses the socket, which close() waits for.
    connection._io_refs += 1
    self._connection = connection
    self._until, self._left = float("inf"), 0

  def allow(self, size: int, seconds: float) -> None:
    """So many bytes may come, within so many seconds from now."""
    self._until, self._left = time.monotonic() + seconds, size

  def readinto(self, buffer) -> int | None:
    """Reads what is there into the buffer."""
    if self._left <= 0:
      raise TooMuchError
    seconds = self._until - time.monotonic()
    if seconds <= 0:
      raise TimeoutError("the client is too slow")
    self._connection.settimeout(seconds)
    view = memoryview(buffer)[: self._left]
    count = super().readinto(view)
    self._left -= count or 0
    return count
