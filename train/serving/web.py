"""The server's HTTP: who may ask what, and how the answer is sent."""

import hashlib
import hmac
import importlib.resources
import json
import re
import socket
import sys
import threading
import urllib.parse
from base64 import b64encode
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedReader
from typing import Any, NamedTuple

from train.serving.limits import Limits, Rate
from train.serving.protocol import ApiError
from train.serving.socket_reader import BoundedReader, TooMuchError

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_JSON = "application/json"


class Service(NamedTuple):
  """What is served.

  answer: (path, the body's object, Reply) -> None; ApiError in place of one.
  models: () -> OpenAI's list of them.
  limits: see Limits.
  key: that a request must carry, or None.
  origin: of another site whose pages may ask, or None.
  log: (line) -> None.
  """

  answer: Callable[[str, Any, "Reply"], None]
  models: Callable[[], list[dict]]
  limits: Limits
  key: str | None = None
  origin: str | None = None
  log: Callable[[str], None] = lambda line: print(line, file=sys.stderr)


POSTS = ("/v1/completions", "/v1/chat/completions")


class Server(ThreadingHTTPServer):
  """A thread for each connection, and so many of them at most."""

  daemon_threads = True
  request_queue_size = 64

  def __init__(self, host: str, port: int, service: Service):
    self.service, self.rate = service, Rate(service.limits.requests_per_minute)
    self.page, self.policy = _page()
    self._places = threading.BoundedSemaphore(service.limits.connections)
    self._idle = threading.Condition()
    self._answering = 0
    self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
    super().__init__((host, port), Handler)
    self.loopback = is_loopback(host)

  def process_request(self, request, client_address) -> None:
    """Starts the connection's thread, or closes what is one too many."""
    if not self._places.acquire(blocking=False):
      self.shutdown_request(request)
      return
    super().process_request(request, client_address)

  def process_request_thread(self, request, client_address) -> None:
    """Serves a connection to its end."""
    try:
      super().process_request_thread(request, client_address)
    finally:
      self._places.release()

  def handle_error(self, request, client_address) -> None:
    """Tells in one line what became of a connection, if it is news."""
    error = sys.exc_info()[1]
    if not isinstance(error, ConnectionError | TimeoutError):
      self.service.log(f"{client_address[0]} {type(error).__name__}: {error}")

  def answering(self, more: int) -> None:
    """Counts the answers under way."""
    with self._idle:
      self._answering += more
      self._idle.notify_all()

  def wait_until_idle(self, seconds: float) -> bool:
    """Whether all answers are sent, in so many seconds at most."""
    with self._idle:
      return self._idle.wait_for(lambda: not self._answering, seconds)


def is_loopback(host: str) -> bool:
  """Whether nobody but this machine can reach a server bound to the host."""
  return host in _LOOPBACK or bool(re.fullmatch(r"127(\.\d{1,3}){3}", host))


def _page() -> tuple[bytes, str]:
  """(page.html, a policy that lets its own script and style run alone)."""
  page = importlib.resources.files(__package__).joinpath("page.html")
  content = page.read_bytes()

  def hashes(tag: str) -> str:
    inside = re.findall(rf"<{tag}>(.*?)</{tag}>".encode(), content, re.S)
    digests = [b64encode(hashlib.sha256(s).digest()).decode() for s in inside]
    return " ".join(f"'sha256-{digest}'" for digest in digests)

  return content, (
    f"default-src 'none'; script-src {hashes('script')}; "
    f"style-src {hashes('style')}; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
  )


class Reply(NamedTuple):
  """How an answer is sent.

  whole: (object) -> None; at once.
  event: (object or "[DONE]") -> None; a part of a stream. OSError where the
    client has gone.
  gone: () -> whether the client has gone.
  """

  whole: Callable[[Any], None]
  event: Callable[[Any], None]
  gone: Callable[[], bool]


class Handler(BaseHTTPRequestHandler):
  """One connection."""

  protocol_version = "HTTP/1.1"
  server_version, sys_version = "tessera", ""
  server: Server

  def setup(self) -> None:
    """Reads the connection within its limits."""
    super().setup()
    self.rfile.close()
    self._bounded = BoundedReader(self.connection)
    self.rfile = BufferedReader(self._bounded)

  def handle_one_request(self) -> None:
    """Serves a request, if it comes soon and its head is not too long."""
    limits = self.server.service.limits
    self._begun = False
    # The buffer may read the beginning of the body with the head.
    self._bounded.allow(limits.header_bytes, limits.seconds_to_send)
    try:
      super().handle_one_request()
    except TooMuchError:
      self.requestline = "(a long head)"
      self.send_error(431, "the head of the request is too long")

  def send_error(self, code, message=None, explain=None) -> None:
    """What is no request at all is told as the rest is."""
    del explain
    self.command, self.request_version = None, self.protocol_version
    self._error(ApiError(int(code), str(message or "no request")[:200]))

  def do_GET(self) -> None:  # noqa: N802
    """The page, and the models."""
    self._serve(self._get)

  def do_POST(self) -> None:  # noqa: N802
    """Completions."""
    self._serve(self._post)

  def do_OPTIONS(self) -> None:  # noqa: N802
    """What a page of another site asks before it asks."""
    self._serve(self._preflight)

  def _serve(self, handle: Callable[[str], None]) -> None:
    self.server.answering(1)
    if (
      self.command != "POST" and self.headers.get("Content-Length", "0") != "0"
    ):
      self.close_connection = True  # its body would be read as a request
    try:
      self._check_site()
      handle(urllib.parse.urlsplit(self.path).path)
    except ApiError as error:
      self._error(error)
    except (TooMuchError, OSError) as error:
      self.close_connection = True
      if not self._begun and isinstance(error, TimeoutError):
        self._error(ApiError(408, "the request did not come in time"))
    finally:
      self.server.answering(-1)

  def _get(self, path: str) -> None:
    if path == "/":
      headers = {"Content-Security-Policy": self.server.policy}
      self._send(200, "text/html; charset=utf-8", self.server.page, headers)
    elif path == "/health":
      self._json(200, {"status": "ok"})
    elif path in POSTS:
      raise ApiError(405, f"{path} is asked by POST", headers={"Allow": "POST"})
    elif path == "/v1/models" or path.startswith("/v1/models/"):
      self._check_client()
      models = self.server.service.models()
      name = urllib.parse.unquote(path.removeprefix("/v1/models")[1:])
      if not name:
        self._json(200, {"object": "list", "data": models})
        return
      found = [model for model in models if model["id"] == name]
      if not found:
        raise ApiError(404, "no such model", code="model_not_found")
      self._json(200, found[0])
    else:
      raise ApiError(404, "there is nothing here")

  def _post(self, path: str) -> None:
    if path not in POSTS:
      raise ApiError(404, "there is nothing here")
    self._check_client()
    body = self._body()
    reply = Reply(lambda found: self._json(200, found), self._event, self._gone)
    self.server.service.answer(path, body, reply)

  def _preflight(self, path: str) -> None:
    del path
    methods = {"Access-Control-Allow-Methods": "GET, POST"}
    allowed = {"Access-Control-Allow-Headers": "Authorization, Content-Type"}
    self._send(204, None, b"", methods | allowed if self._cors() else {})

  def _check_site(self) -> None:
    """Refuses what a page of another site sends through a user's browser."""
    if "Transfer-Encoding" in self.headers:
      raise ApiError(411, "a body is sent with its Content-Length")
    hosts = self.headers.get_all("Host", [])
    if len(hosts) != 1:
      raise ApiError(400, "a request has one Host")
    host = hosts[0].strip().lower()
    if self.server.loopback:
      # A name that an attacker owns may lead to this machine.
      name = re.sub(r":\d{1,5}$", "", host).strip("[]")
      if name not in _LOOPBACK and not is_loopback(name):
        raise ApiError(403, "this server answers to localhost alone")
    origin = self.headers.get("Origin")
    if origin is not None and not self._cors():
      try:
        site = urllib.parse.urlsplit(origin).netloc.lower()
      except ValueError:
        site = ""
      if site != host:
        raise ApiError(403, "pages of other sites may not ask this server")

  def _cors(self) -> dict[str, str]:
    """What lets a page of another site read the answer, where one may."""
    origin = self.server.service.origin
    if origin is None or self.headers.get("Origin") != origin:
      return {}
    return {"Access-Control-Allow-Origin": origin, "Vary": "Origin"}

  def _check_client(self) -> None:
    wait = self.server.rate.wait(self.client_address[0])
    if wait:
      seconds = {"Retry-After": str(int(wait) + 1)}
      raise ApiError(
        429, "too many requests", code="rate_limit_exceeded", headers=seconds
      )
    key = self.server.service.key
    if key is None:
      return
    given = self.headers.get("Authorization", "")
    scheme, _, given = given.partition(" ")
    # Digests: of equal lengths, whatever was given.
    digests = [
      hashlib.sha256(each.encode("utf-8", "surrogateescape")).digest()
      for each in (given.strip(), key)
    ]
    if not hmac.compare_digest(*digests) or scheme.lower() != "bearer":
      raise ApiError(
        401,
        "the key is missing or wrong",
        code="invalid_api_key",
        headers={"WWW-Authenticate": "Bearer"},
      )

  def _body(self) -> Any:
    """The object of a request's body."""
    limits = self.server.service.limits
    kind = self.headers.get("Content-Type", "").partition(";")[0].strip()
    if kind.lower() != _JSON:
      raise ApiError(415, f"a body is of Content-Type {_JSON}")
    lengths = self.headers.get_all("Content-Length", [])
    if len(lengths) != 1 or not re.fullmatch(r"[0-9]{1,18}", lengths[0]):
      raise ApiError(411, "a body has one Content-Length")
    size = int(lengths[0])
    if size > limits.body_bytes:
      raise ApiError(413, f"a body has {limits.body_bytes} bytes at most")
    self._bounded.allow(size, limits.seconds_to_send)
    content = self.rfile.read(size) if size else b""
    if len(content) < size:
      raise ApiError(400, "the body ended before its Content-Length")
    self._begun = True  # the connection can go on behind it
    try:
      return json.loads(content.decode("utf-8"))
    except RecursionError:
      raise ApiError(400, "the body is nested too deeply") from None
    except ValueError as error:
      reason = str(error).splitlines()[0][:100]
      raise ApiError(400, f"the body is no JSON: {reason}") from None

  def _gone(self) -> bool:
    """Whether the client has closed its end."""
    try:
      self.connection.settimeout(0)
      return self.connection.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
      return False
    except OSError:
      return True

  def _event(self, found: Any) -> None:
    if not self._streaming:
      self._streaming = True
      self._head(200, "text/event-stream; charset=utf-8", None, {})
    text = found if isinstance(found, str) else json.dumps(found)
    self._write(f"data: {text}\n\n".encode())

  _streaming = False

  def _json(self, status: int, found: Any, headers=None) -> None:
    content = json.dumps(found).encode()
    self._send(status, _JSON, content, headers or {})

  def _error(self, error: ApiError) -> None:
    if self._streaming:
      self._event(error.body())
      self.close_connection = True
      return
    if not self._begun:
      self.close_connection = True  # a body may follow that was not read
    try:
      self._json(error.status, error.body(), error.headers)
    except OSError:
      self.close_connection = True

  def _send(self, status: int, kind, content: bytes, headers: dict) -> None:
    self._head(status, kind, len(content), headers)
    self._write(content)

  def _head(self, status: int, kind, size: int | None, headers: dict) -> None:
    self.send_response(status)
    if kind:
      self.send_header("Content-Type", kind)
    if size is None:
      self.close_connection = True  # the end of a stream is the end of it
    else:
      self.send_header("Content-Length", str(size))
    if self.close_connection:
      self.send_header("Connection", "close")
    cors = self._cors() if self.command else {}
    for name, value in (headers | cors).items():
      self.send_header(name, value)
    self.send_header("X-Content-Type-Options", "nosniff")
    self.send_header("Referrer-Policy", "no-referrer")
    self.send_header("Cache-Control", "no-store")
    self.connection.settimeout(self.server.service.limits.seconds_to_send)
    self.end_headers()

  def _write(self, content: bytes) -> None:
    self.connection.settimeout(self.server.service.limits.seconds_to_send)
    self.wfile.write(content)

  def log_message(self, form: str, *values) -> None:
    """A line a request, without what was said in it."""
    line = form % values
    line = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in line)
    self.server.service.log(f"{self.client_address[0]} {line[:300]}")
