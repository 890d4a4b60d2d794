"""A server of a trained model in this process; no test of its own."""

import contextlib
import json
import socket
import threading
import time
import urllib.error
import urllib.request

from train.generation import streaming
from train.serving import answering, batching, limits, server, web


@contextlib.contextmanager
def serving(speaker, key=None, origin=None, **given):
  """A server of the speaker; yields it, with the lines of its log in `said`."""
  allowed = limits.Limits(**given)
  said = []
  engine = batching.Engine(
    speaker, allowed.batch, allowed.waiting, say=said.append
  )
  answers = answering.Answering(speaker, engine, allowed, "tiny")
  service = web.Service(
    answers.answer, answers.models, allowed, key, origin, said.append
  )
  found = server.Server("127.0.0.1", 0, service)
  found.said, found.engine = said, engine
  found.start()
  try:
    yield found
  finally:
    found.stop_accepting()
    assert engine.close(60)
    assert found.join(60)


def request(server, path, body=None, headers=None, method=None):
  """(status, headers, object or text) of a request."""
  data = body if body is None or isinstance(body, bytes) else json.dumps(body)
  data = data.encode() if isinstance(data, str) else data
  url = f"http://127.0.0.1:{server.server_address[1]}{path}"
  headers = {"Content-Type": "application/json", **(headers or {})}
  asked = urllib.request.Request(url, data, headers, method=method)
  try:
    answer = urllib.request.urlopen(asked, timeout=60)
  except urllib.error.HTTPError as error:
    answer = error
  with answer:
    content = answer.read().decode()
    kind = answer.headers.get("Content-Type", "")
    found = json.loads(content) if kind == "application/json" else content
    return answer.status, answer.headers, found


def raw(server, content: bytes) -> bytes:
  """What comes back for bytes that need be no HTTP."""
  address = ("127.0.0.1", server.server_address[1])
  with socket.create_connection(address, timeout=30) as client:
    client.sendall(content)
    parts = []
    with contextlib.suppress(ConnectionError):
      while part := client.recv(65536):
        parts.append(part)
  return b"".join(parts)


def slowly(speaker, seconds):
  """A speaker that takes so long for a token, and an event set at its end."""
  left = threading.Event()

  def write(prompts, options):
    del options
    try:
      while True:
        time.sleep(seconds)
        for row in range(len(prompts)):
          yield streaming.Piece(row, "a", (97,), None)
    finally:
      left.set()

  return speaker._replace(write=write), left
