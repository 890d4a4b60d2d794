"""Connections: smuggled requests, idle and slow clients, and their limits."""

import contextlib
import json
import logging
import select
import socket
import subprocess
import sys
import time

import pytest
from local_server import raw, request, serving, slowly, wait_until

from train.serving import connections

HEAD = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n"
POST = (
  b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
  b"Content-Type: application/json\r\n"
)
INNER = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(scope="module")
def server(speaker):
  with serving(speaker, requests_per_minute=10**6) as found:
    yield found


def statuses(answer: bytes) -> list[int]:
  return [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]


@pytest.mark.parametrize(
  "lines",
  [
    b"junk\r\n",
    b"X : y\r\n",
    b" X: y\r\n",
    b"X y: z\r\n",
    b": y\r\n",
    b"X\xff: y\r\n",
    b"X: a\0b\r\n",
    b"X: a\rOrigin: http://localhost\r\n",
    b"X: y\n",
    b"X: y\n\nZ: z\r\n",
    b"X: a\r\n b\r\n",
    b"X: a\r\n\tb\r\n",
    b"Host : localhost\r\n",
    b"Host: localhost\r\n",
    b"Origin: http://localhost\r\n",
    b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\n",
    b"Content-Length: 0\r\nContent-Length: 70\r\n",
    b"Content-Length: 0\r\ncontent-length: 0\r\n",
    b"Content-Length: 0, 0\r\n",
    b"Content-Length: +1\r\n",
    b"Content-Length: -1\r\n",
    b"Content-Length: 0x1\r\n",
    b"Content-Length: 1 1\r\n",
    b"Content-Length:\r\n",
    b"Content-Length: " + b"9" * 30 + b"\r\n",
    b"Content-Length : 70\r\n",
    b"Transfer-Encoding : chunked\r\n",
    b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
    b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: chunked, identity\r\n",
    b"Transfer-Encoding: xchunked\r\n",
    b"Transfer-Encoding:\x0bchunked\r\n",
  ],
)
@pytest.mark.parametrize("start", [HEAD, POST])
def test_ambiguous_headers_are_refused_once(server, start, lines):
  """And the headers behind them, such as Origin, are never lost."""
  origin = b"Origin: http://evil.example\r\n"
  for head in (start + lines + origin, start + origin + lines):
    answer = raw(server, head + b"\r\n" + INNER)
    assert statuses(answer) == [400], answer
    body = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert body["error"]["type"] == "invalid_request_error"


def test_an_origin_is_seen_behind_any_header(server):
  """The forms above without their fault are answered for what they are."""
  for line in (b"", b"X: y\r\n", b"X:\r\n", b"X: \xe9\t \xff\r\n"):
    for origin, status in ((b"evil.example", 403), (b"localhost", 200)):
      head = HEAD + line + b"Origin: http://" + origin + b"\r\n"
      answer = raw(server, head + b"Connection: close\r\n\r\n")
      assert statuses(answer) == [status]


def test_pipelined_requests_are_checked_too(server):
  folded = b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: a\r\n b\r\n\r\n"
  assert statuses(raw(server, INNER + INNER + folded)) == [200, 200, 400]
  evil = b"GET /health HTTP/1.1\r\nHost: evil.example\r\n\r\n"
  assert statuses(raw(server, INNER + evil + INNER)) == [200, 403]


def test_a_body_may_contain_what_headers_may_not(server):
  body = b'{"prompt": "a",\n "max_tokens":\n\n 1, "user": "Content-Length: 1,"}'
  head = POST + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
  for size in (1, 7, len(head) + 3, len(head + body)):
    address = ("127.0.0.1", server.server_address[1])
    with socket.create_connection(address, timeout=30) as client:
      for i in range(0, len(head + body), size):
        client.sendall((head + body)[i : i + size])
      assert client.recv(12) == b"HTTP/1.1 200"


def test_the_size_of_headers_is_limited_to_the_byte():
  head = HEAD + b"\r\n"
  assert connections.fault(head, len(head)) is None
  assert connections.fault(head + b"x" * 99, len(head)) is None
  assert connections.fault(head, len(head) - 1)[0] == 431
  assert connections.fault(b"GET /" + b"x" * 95, 100) is None
  assert connections.fault(b"GET /" + b"x" * 96, 100)[0] == 431


def test_idle_connections_of_an_address_are_limited(speaker):
  with (
    serving(speaker, idle_connections=8) as server,
    contextlib.ExitStack() as stack,
  ):
    address = ("127.0.0.1", server.server_address[1])
    idle = [
      stack.enter_context(socket.create_connection(address, timeout=30))
      for _ in range(128)
    ]
    assert statuses(raw(server, INNER)) == [503]  # for half a second
    until = time.monotonic() + 10
    while len(select.select(idle, [], [], 0)[0]) < 120:
      assert time.monotonic() < until
      time.sleep(0.05)
    for client in select.select(idle, [], [], 0)[0]:
      answer = client.recv(10_000)
      assert statuses(answer) == [503]
      assert b"idle connections" in answer
      assert b"\r\nretry-after: 5\r\n" in answer
    assert request(server, "/health")[0] == 200
    left = [c for c in idle if c not in select.select(idle, [], [], 0)[0]]
    assert len(left) == 8  # and they may still send a request
    left[0].sendall(INNER)
    assert left[0].recv(12) == b"HTTP/1.1 200"


def test_many_connections_at_once_are_no_idle_ones(speaker):
  with (
    serving(speaker, idle_connections=4) as server,
    contextlib.ExitStack() as stack,
  ):
    address = ("127.0.0.1", server.server_address[1])
    clients = [
      stack.enter_context(socket.create_connection(address, timeout=30))
      for _ in range(100)
    ]
    for client in clients:
      client.sendall(INNER)
    assert {client.recv(12) for client in clients} == {b"HTTP/1.1 200"}


def test_connections_of_all_addresses_are_limited(speaker):
  with serving(speaker, connections=4) as server, contextlib.ExitStack() as s:
    address = ("127.0.0.1", server.server_address[1])
    for i in range(4):
      own = (f"127.0.0.{i + 2}", 0)
      s.enter_context(socket.create_connection(address, 30, own))
    answer = raw(server, INNER)
    assert statuses(answer) == [503]
    assert b"too many connections are open" in answer


def test_requests_that_are_answered_are_not_idle(speaker):
  body = json.dumps({"prompt": "a", "max_tokens": 90}).encode()
  head = POST + b"Content-Length: %d\r\n\r\n" % len(body)
  with serving(speaker, slots=slowly(0.05), idle_connections=1) as server:
    with contextlib.ExitStack() as stack:
      address = ("127.0.0.1", server.server_address[1])
      for count in range(1, 4):
        client = stack.enter_context(socket.create_connection(address, 30))
        client.sendall(head + body)
        wait_until(lambda count=count: server.engine.held() >= count)
      assert request(server, "/health")[0] == 200
    # Whole answers are dropped when their clients disconnect, as streams are.
    wait_until(lambda: not server.engine.held())


def test_a_client_that_does_not_read_is_disconnected(speaker):
  endless = speaker._replace(window=None)
  body = {"prompt": "a", "max_tokens": 10**6, "stream": True, "n": 8}
  body = json.dumps(body).encode()
  allowed = {"seconds_to_send": 0.5, "max_tokens": 10**6}
  with serving(endless, slots=slowly(0.0), **allowed) as server:
    address = ("127.0.0.1", server.server_address[1])
    with socket.socket() as client:
      client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
      client.connect(address)
      client.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(body) + body)
      wait_until(server.engine.held)
      wait_until(lambda: not server.engine.held(), 60)


def test_methods_and_upgrades_that_are_not_supported(server):
  close = b"Host: localhost\r\nConnection: close\r\n\r\n"
  head = raw(server, b"HEAD / HTTP/1.1\r\n" + close)
  assert statuses(head) == [200] and head.endswith(b"\r\n\r\n")
  for method in (b"CONNECT localhost:80", b"TRACE *", b"GET http://evil/"):
    assert statuses(raw(server, method + b" HTTP/1.1\r\n" + close)) == [404]
  upgrade = b"Connection: close, Upgrade\r\nUpgrade: websocket\r\n"
  assert statuses(raw(server, HEAD + upgrade + b"\r\n")) == [200]
  expect = b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n"
  address = ("127.0.0.1", server.server_address[1])
  with socket.create_connection(address, timeout=30) as client:
    client.sendall(POST + expect)
    assert statuses(client.recv(1000)) == [100]
    client.sendall(b"{}")
    assert statuses(client.recv(1000)) == [400]


def test_an_idle_connection_is_closed_after_an_answer(speaker):
  with serving(speaker, seconds_to_send=0.3) as server:
    start = time.monotonic()
    assert statuses(raw(server, INNER)) == [200]
    assert 0.2 < time.monotonic() - start < 10
    assert statuses(raw(server, INNER + b"GET /heal")) == [200]


def test_a_forwarded_address_does_not_evade_the_rate_limit(speaker):
  with serving(speaker, requests_per_minute=2) as server:
    found = [
      request(server, "/v1/models", headers={"X-Forwarded-For": f"1.2.3.{i}"})
      for i in range(3)
    ]
    assert [status for status, _, _ in found] == [200, 200, 429]
    assert all(line.startswith("127.0.0.1 ") for line in server.said)


def test_an_error_of_the_server_is_one_line(speaker):
  with serving(speaker) as server:
    server.engine.submit = lambda job: 1 / 0
    status, _, found = request(server, "/v1/completions", {"prompt": "a"})
    assert (status, found["error"]["type"]) == (500, "server_error")
    assert "division" not in found["error"]["message"]
    wait_until(lambda: any("ZeroDivisionError" in s for s in server.said))
    wrong = [line for line in server.said if "ZeroDivisionError" in line]
    assert len(wrong) == 1 and "\n" not in wrong[0]
    del server.engine.submit
    body = {"prompt": "a", "max_tokens": 1}
    assert request(server, "/v1/completions", body)[0] == 200


def test_a_client_that_left_is_not_logged(server, caplog):
  logger = logging.getLogger("asyncio")
  logger.warning("socket.send() raised exception.")
  logger.warning("another")
  assert [record.message for record in caplog.records] == ["another"]


def test_a_missing_library_is_one_line():
  code = (
    "import sys; sys.modules['uvicorn'] = None; sys.argv = ['x', '--workdir=y']"
    "; from train import serve; from common import cli"
    "; sys.exit(cli.run(serve.main))"
  )
  done = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True
  )
  assert done.returncode == 2
  assert done.stderr == (
    "error: the server needs starlette and uvicorn: pip install -e '.[serve]'\n"
  )
