"""Runs the application under uvicorn, in a thread of its own."""

import functools
import logging
import socket
import threading

import uvicorn

from train.serving import access, web
from train.serving.connections import Connection


def listening(host: str, port: int) -> socket.socket:
  """Returns a socket that listens on host:port; OSError if it cannot."""
  six = ":" in host
  return socket.create_server(
    (host, port),
    family=socket.AF_INET6 if six else socket.AF_INET,
    dualstack_ipv6=six and socket.has_dualstack_ipv6(),
  )


def _not_of_a_client_that_left(record: logging.LogRecord) -> bool:
  """Drops asyncio's line about an answer to a client that has disconnected."""
  return record.msg != "socket.send() raised exception."


class Server:
  """A server that listens on host:port; OSError if it cannot.

  Attributes:
    server_address: the address that the socket is bound to.
    loopback: whether only this machine can reach it.
  """

  def __init__(self, host: str, port: int, service: web.Service):
    self._socket = listening(host, port)
    self.server_address = self._socket.getsockname()
    self.loopback = access.is_loopback(host)
    limits = service.limits
    # Adding the same function again has no effect.
    logging.getLogger("asyncio").addFilter(_not_of_a_client_that_left)
    self._uvicorn = uvicorn.Server(
      uvicorn.Config(
        web.application(service, self.loopback),
        http=functools.partial(Connection, limits=limits, log=service.log),
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        # Errors are logged by the application, one line each.
        log_level="critical",
        access_log=False,
        # Anybody can send X-Forwarded-For; rates count the real address.
        proxy_headers=False,
        headers=[("server", "tessera")],
        timeout_keep_alive=limits.seconds_to_send,
        h11_max_incomplete_event_size=limits.header_bytes,
      )
    )
    self._thread = threading.Thread(
      target=self._uvicorn.run, args=([self._socket],), daemon=True
    )

  def start(self) -> None:
    """Starts to answer requests."""
    self._thread.start()

  def running(self) -> bool:
    """Whether requests are answered, or their answers still being sent."""
    return self._thread.is_alive()

  def stop_accepting(self) -> None:
    """Refuses new connections; requests that have arrived are answered."""
    self._uvicorn.should_exit = True

  def join(self, seconds: float) -> bool:
    """Waits for the last answers; returns whether all have been sent."""
    self._thread.join(seconds)
    return not self.running()
