"""The Starlette application: routes, request bodies and streamed answers."""

import asyncio
import contextlib
import hashlib
import importlib.resources
import json
import re
import sys
from base64 import b64encode
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NamedTuple

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from train.serving import access
from train.serving.answering import DONE, Answer
from train.serving.connections import SECURITY_HEADERS
from train.serving.limits import Limits, Rate
from train.serving.protocol import ApiError

_JSON = "application/json"
COMPLETIONS = ("/v1/completions", "/v1/chat/completions")


class Service(NamedTuple):
  """What the application serves.

  answer: (path, the body's JSON value) -> Answer; raises ApiError.
  models: () -> OpenAI's list of models.
  limits: see Limits.
  key: the API key that requests must carry, or None.
  origin: the other site whose pages may send requests, or None.
  log: called with each line of the log.
  paths: the paths that `answer` answers.
  page: the file of this folder that is shown at /.
  """

  answer: Callable[[str, Any], Answer]
  models: Callable[[], list[dict]]
  limits: Limits
  key: str | None = None
  origin: str | None = None
  log: Callable[[str], None] = lambda line: print(line, file=sys.stderr)
  paths: Sequence[str] = COMPLETIONS
  page: str = "page.html"


def application(service: Service, loopback: bool) -> "Guard":
  """The ASGI application.

  Args:
    service: see Service.
    loopback: whether the server is bound to a loopback address.
  """
  routes = _Routes(service)
  app = Starlette(
    routes=[
      Route("/", routes.page),
      Route("/health", routes.health),
      Route("/v1/models", routes.models),
      Route("/v1/models/{name:path}", routes.models),
      *(Route(p, routes.complete, methods=["POST"]) for p in service.paths),
    ],
    exception_handlers={
      ApiError: _refused,
      HTTPException: _not_routed,
      Exception: _failed,
    },
  )
  app.router.redirect_slashes = False
  return Guard(app, service, loopback)


class Guard:
  """Checks each request before the routes do, and completes each answer.

  Args:
    app: the ASGI application with the routes.
    service: see Service.
    loopback: whether the server is bound to a loopback address.
  """

  def __init__(self, app, service: Service, loopback: bool):
    self.app, self.service, self.loopback = app, service, loopback

  async def __call__(self, scope, receive, send) -> None:
    """Answers a request."""
    request = Request(scope, receive)

    async def complete(message) -> None:
      if message["type"] == "http.response.start":
        own = self._headers(request, message["status"])
        message = {**message, "headers": [*message["headers"], *own]}
        self._log(request, message["status"])
      await send(message)

    app = self.app
    try:
      access.check_site(request, self.loopback, self.service.origin)
      if request.method == "OPTIONS":
        app = self._preflight(request)
    except ApiError as error:
      app = _refusal(error)
    try:
      await app(scope, receive, complete)
    except ClientDisconnect:
      pass  # nobody is left to be answered
    except Exception as error:
      reason = f"{type(error).__name__}: {error}"
      self.service.log(f"{access.address(request)} {_printable(reason)}")

  def _preflight(self, request: Request) -> Response:
    """Answers a browser that asks whether another site may send a request."""
    if not access.cors(request, self.service.origin):
      return Response(status_code=204)
    allowed = {
      "access-control-allow-methods": "GET, POST",
      "access-control-allow-headers": "Authorization, Content-Type",
    }
    return Response(status_code=204, headers=allowed)

  def _headers(self, request: Request, status: int) -> list:
    headers = {
      **SECURITY_HEADERS,
      **access.cors(request, self.service.origin),
    }
    # Otherwise a body that nobody reads would keep the connection busy.
    length = request.headers.get("content-length", "0")
    body = request.method != "POST" and length != "0"
    read = getattr(request.state, "body_read", False)
    if body or (status >= 400 and not read):
      headers["connection"] = "close"
    return [(k.encode(), v.encode("latin-1")) for k, v in headers.items()]

  def _log(self, request: Request, status: int) -> None:
    """Logs a line for a request, without its body and its key."""
    scope = request.scope
    path = scope["raw_path"].decode("latin-1")
    query = scope["query_string"].decode("latin-1")
    target = f"{path}?{query}" if query else path
    self.service.log(
      f'{access.address(request)} "{request.method} {_printable(target)[:300]}'
      f' HTTP/{scope["http_version"]}" {status}'
    )


class _Routes:
  """The endpoints of a service."""

  def __init__(self, service: Service):
    self.service = service
    self.rate = Rate(service.limits.requests_per_minute)
    self.content, self.policy = _page(service.page)

  async def page(self, request: Request) -> Response:
    del request
    headers = {"content-security-policy": self.policy}
    return Response(self.content, media_type="text/html", headers=headers)

  async def health(self, request: Request) -> Response:
    del request
    return JSONResponse({"status": "ok"})

  async def models(self, request: Request) -> Response:
    access.check_client(request, self.rate, self.service.key)
    models = self.service.models()
    name = request.path_params.get("name")
    if not name:
      return JSONResponse({"object": "list", "data": models})
    found = [model for model in models if model["id"] == name]
    if not found:
      raise ApiError(
        404, "this model does not exist here", code="model_not_found"
      )
    return JSONResponse(found[0])

  async def complete(self, request: Request) -> Response:
    access.check_client(request, self.rate, self.service.key)
    content = await self._body(request)
    # Long prompts take a while to encode; serve other requests meanwhile.
    answer = await asyncio.to_thread(
      lambda: self.service.answer(request.scope["path"], _parsed(content))
    )
    if answer.streamed:
      return _EventStream(answer)
    return JSONResponse(await _while_connected(request.receive, answer.whole()))

  async def _body(self, request: Request) -> bytes:
    """A request's body of JSON; ApiError if there is none."""
    limits, headers = self.service.limits, request.headers
    kind = headers.get("content-type", "").partition(";")[0].strip()
    if kind.lower() != _JSON:
      raise ApiError(415, f"the Content-Type of a body must be {_JSON}")
    if "content-length" not in headers:
      raise ApiError(411, "the body must be sent with a Content-Length")
    if int(headers["content-length"]) > limits.body_bytes:
      raise ApiError(413, f"the body exceeds {limits.body_bytes} bytes")
    try:
      async with asyncio.timeout(limits.seconds_to_send):
        content = await request.body()
    except TimeoutError:
      raise ApiError(408, "the body did not arrive in time") from None
    request.state.body_read = True  # the connection can serve another request
    return content


class _EventStream(Response):
  """An answer as server-sent events, sent as it is generated."""

  def __init__(self, answer: Answer):
    super().__init__(media_type="text/event-stream")
    self.answer = answer

  async def __call__(self, scope, receive, send) -> None:
    del scope
    await _while_connected(receive, self._send(send))

  async def _send(self, send) -> None:
    begun = False

    async def write(values: Sequence[Any], more: bool = True) -> None:
      nonlocal begun
      if not begun:
        headers = [h for h in self.raw_headers if h[0] != b"content-length"]
        start = {"status": 200, "headers": headers}
        await send({"type": "http.response.start", **start})
        begun = True
      texts = (v if isinstance(v, str) else json.dumps(v) for v in values)
      body = "".join(f"data: {text}\n\n" for text in texts).encode()
      part = {"type": "http.response.body", "body": body, "more_body": more}
      await send(part)

    try:
      async with contextlib.aclosing(self.answer.events()) as events:
        async for values in events:
          await write(values, more=values[-1:] != [DONE])
    except ApiError as error:
      if not begun:
        raise
      await write([error.body()], more=False)


async def _while_connected(receive, work: Coroutine) -> Any:
  """The result of `work`, which is cancelled when the client disconnects.

  Raises:
    ClientDisconnect: the client has disconnected.
  """

  async def disconnected() -> None:
    while (await receive())["type"] != "http.disconnect":
      pass

  tasks = [asyncio.create_task(work), asyncio.create_task(disconnected())]
  try:
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    if tasks[0].done():
      return tasks[0].result()
    raise ClientDisconnect
  finally:
    for task in tasks:
      task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _refusal(error: ApiError) -> Response:
  return JSONResponse(error.body(), error.status, headers=error.headers)


async def _refused(request: Request, error: ApiError) -> Response:
  del request
  return _refusal(error)


async def _not_routed(request: Request, error: HTTPException) -> Response:
  """Starlette's 404 and 405 in OpenAI's form."""
  del request
  messages = {
    404: "this path does not exist",
    405: "this path does not support the method",
  }
  message = messages.get(error.status_code, error.detail)
  return _refusal(ApiError(error.status_code, message, headers=error.headers))


async def _failed(request: Request, error: Exception) -> Response:
  del request, error  # Guard logs it
  return _refusal(ApiError(500, "the server failed to answer"))


def _parsed(content: bytes) -> Any:
  try:
    return json.loads(content.decode("utf-8"))
  except RecursionError:
    raise ApiError(400, "the JSON of the body is nested too deeply") from None
  except ValueError as error:
    reason = str(error).splitlines()[0][:100]
    raise ApiError(400, f"the body is not valid JSON: {reason}") from None


def _page(name: str) -> tuple[bytes, str]:
  """A page, and a policy that permits only its own script and style.

  The style that the pages share is written into it.
  """
  folder = importlib.resources.files(__package__)
  content = folder.joinpath(name).read_bytes()
  shared = folder.joinpath("style.css").read_bytes()
  content = content.replace(b'@import "style.css";\n', shared)

  def hashes(tag: str) -> str:
    inside = re.findall(rf"<{tag}>(.*?)</{tag}>".encode(), content, re.S)
    digests = [b64encode(hashlib.sha256(s).digest()).decode() for s in inside]
    return " ".join(f"'sha256-{digest}'" for digest in digests)

  return content, (
    f"default-src 'none'; script-src {hashes('script')}; "
    f"style-src {hashes('style')}; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
  )


def _printable(text: str) -> str:
  return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
