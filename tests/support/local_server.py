"""A server of a trained model in this process; no test of its own."""

import contextlib
import json
import socket
import time
import types
import urllib.error
import urllib.request

from train.generation import slot_programs, slots
from train.serving import answering, batching, limits, server, web

_programs: dict = {}


def slots_of(speaker, limits) -> slots.Slots:
  """The slots of a model, whose programs the servers of a worker share."""
  room = min(limits.room, speaker.window or limits.room)
  key = (id(speaker.inference.variables), limits.batch, room)
  if key not in _programs:
    _programs.clear()
    _programs[key] = slot_programs.programs(
      speaker.inference, limits.batch, room
    )
  return slots.Slots(_programs[key])


@contextlib.contextmanager
def serving(speaker, key=None, origin=None, slots=None, **given):
  """A server of the speaker; yields it, with the lines of its log in `said`."""
  allowed = limits.Limits(**{"batch": 4, **given})
  said = []
  engine = batching.Engine(
    speaker, slots or slots_of(speaker, allowed), allowed.waiting, said.append
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


class FakeSlots:
  """Slots whose texts get what `draw()` returns, a list of tokens, each time.

  chunk is 0, so that only the tokens themselves end a text.
  """

  count, chunk = 16, 0

  def __init__(self, draw):
    self.draw = draw

  def read(self, ids):
    """Reads nothing."""
    return iter(())

  def join(self, slot, ids, options):
    """Nothing is kept."""

  def move(self, source, target):
    """Nothing is kept."""

  def reset(self):
    """Nothing is kept."""

  def advance(self, occupied, room, most):
    """The next tokens of every slot."""
    found = [self.draw()] * occupied
    return types.SimpleNamespace(lists=lambda: found, ready=lambda: True)


def slowly(seconds, count=16):
  """Slots that take so long for the next token of their texts."""

  def draw():
    time.sleep(seconds)
    return [97]

  found = FakeSlots(draw)
  found.count = count
  return found


def wait_until(holds, seconds=30):
  """Waits until holds() is true; fails after so many seconds."""
  until = time.monotonic() + seconds
  while not holds():
    assert time.monotonic() < until
    time.sleep(0.01)
