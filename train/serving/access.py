"""Who may send requests: checks of the host, the origin, the rate and the key.

A browser sends requests of any page that it shows. Without the checks of Host
and Origin, a foreign web page could use a server that listens on 127.0.0.1.
"""

import hashlib
import hmac
import re
import urllib.parse

from starlette.requests import Request

from train.serving.limits import Rate
from train.serving.protocol import ApiError

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
# If one of these were given twice, only the first would be checked.
_SINGLE = ("host", "origin", "authorization", "content-type")


def is_loopback(host: str) -> bool:
  """Whether a server bound to `host` can be reached from this machine only."""
  return host in _LOOPBACK or bool(re.fullmatch(r"127(\.\d{1,3}){3}", host))


def address(request: Request) -> str:
  """The client's IP address, or "unknown" if it has already disconnected."""
  return request.client.host if request.client else "unknown"


def check_site(request: Request, loopback: bool, origin: str | None) -> None:
  """Refuses ambiguous requests and those that another site's page sends.

  Args:
    request: whose headers are checked.
    loopback: whether the server is bound to a loopback address.
    origin: the other site whose pages are allowed, or None.

  Raises:
    ApiError: with the status 400, 403, 411 or 505.
  """
  headers = request.headers
  if request.scope["http_version"] not in ("1.0", "1.1"):
    raise ApiError(505, "only HTTP/1.0 and HTTP/1.1 are supported")
  if "transfer-encoding" in headers:
    if "content-length" in headers:
      raise ApiError(400, "Transfer-Encoding and Content-Length are both given")
    raise ApiError(411, "the body must be sent with a Content-Length")
  for name in _SINGLE:
    if len(headers.getlist(name)) > 1:
      raise ApiError(400, f"the header {name} is given more than once")
  host = headers.get("host", "").strip().lower()
  if not host:
    raise ApiError(400, "the header host is missing")
  if loopback:
    # A DNS name that an attacker owns may resolve to 127.0.0.1.
    name = re.sub(r":\d{1,5}$", "", host).strip("[]")
    if not is_loopback(name):
      raise ApiError(403, "this server only answers requests to localhost")
  given = headers.get("origin")
  if given is not None and given != origin:
    try:
      site = urllib.parse.urlsplit(given).netloc.lower()
    except ValueError:
      site = ""
    if site != host:
      raise ApiError(403, "pages of other sites may not use this server")


def cors(request: Request, origin: str | None) -> dict[str, str]:
  """The headers that let a page of the site `origin` read the answer."""
  if origin is None or request.headers.get("origin") != origin:
    return {}
  return {"access-control-allow-origin": origin, "vary": "Origin"}


def check_client(request: Request, rate: Rate, key: str | None) -> None:
  """Counts the request and checks its key.

  Raises:
    ApiError: 429 if the address exceeds its rate, 401 if the key is wrong.
  """
  wait = rate.wait(address(request))
  if wait:
    seconds = {"Retry-After": str(int(wait) + 1)}
    raise ApiError(
      429, "too many requests", code="rate_limit_exceeded", headers=seconds
    )
  if key is None:
    return
  scheme, _, given = request.headers.get("authorization", "").partition(" ")
  # Digests have equal lengths, so that the comparison takes constant time.
  digests = [
    hashlib.sha256(each).digest()
    for each in (given.strip().encode("latin-1"), key.encode())
  ]
  if not hmac.compare_digest(*digests) or scheme.lower() != "bearer":
    raise ApiError(
      401,
      "the API key is missing or wrong",
      code="invalid_api_key",
      headers={"WWW-Authenticate": "Bearer"},
    )
