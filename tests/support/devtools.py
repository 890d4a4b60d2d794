"""A headless Chromium, driven over its DevTools protocol; no test of its own.

The client of WebSocket (RFC 6455) is as small as the protocol needs it.
"""

import base64
import contextlib
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import time
import urllib.parse
import urllib.request

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


class Page:
  """A page of the browser.

  Args:
    url: of its WebSocket.
  """

  def __init__(self, url: str):
    place = urllib.parse.urlsplit(url)
    self._socket = socket.create_connection((place.hostname, place.port), 60)
    self._rest, self._number, self.events = b"", 0, []
    key = base64.b64encode(os.urandom(16)).decode()
    self._socket.sendall(
      (
        f"GET {place.path} HTTP/1.1\r\nHost: {place.netloc}\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
      ).encode()
    )
    head = b""
    while not head.endswith(b"\r\n\r\n"):
      head += self._take(1)
    assert b" 101 " in head.splitlines()[0]

  def _take(self, size: int) -> bytes:
    while len(self._rest) < size:
      part = self._socket.recv(65536)
      assert part, "the browser has gone"
      self._rest += part
    taken, self._rest = self._rest[:size], self._rest[size:]
    return taken

  def _message(self) -> dict:
    whole = b""
    while True:
      first, second = self._take(2)
      size = second & 127
      if size > 125:
        width = 2 if size == 126 else 8
        size = int.from_bytes(self._take(width), "big")
      whole += self._take(size)
      if first & 128 and first & 15 < 8:
        return json.loads(whole)

  def send(self, method: str, **params) -> dict:
    """The result of a command."""
    self._number += 1
    content = json.dumps(
      {"id": self._number, "method": method, "params": params}
    ).encode()
    size = len(content)
    if size < 126:
      head = struct.pack("!BB", 0x81, 128 | size)
    else:
      head = struct.pack("!BBH", 0x81, 128 | 126, size)
    self._socket.sendall(head + bytes(4) + content)  # a mask of zeros
    while True:
      found = self._message()
      if found.get("id") == self._number:
        assert "error" not in found, found
        return found["result"]
      self.events.append(found)

  def run(self, script: str):
    """What a script in the page is worth."""
    found = self.send(
      "Runtime.evaluate",
      expression=script,
      awaitPromise=True,
      returnByValue=True,
    )
    assert "exceptionDetails" not in found, found
    return found["result"].get("value")

  def until(self, script: str, seconds: float = 60.0):
    """The script's value, as soon as it counts as true."""
    end = time.monotonic() + seconds
    while not (value := self.run(script)):
      assert time.monotonic() < end, f"{script} is still {value!r}"
      time.sleep(0.05)
    return value

  def close(self) -> None:
    """Leaves the page."""
    self._socket.close()


@contextlib.contextmanager
def browser(profile):
  """Yields a function that opens a Page; the browser keeps files in profile."""
  process = subprocess.Popen(
    [
      CHROMIUM,
      *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
      *("--disable-background-networking", "--disable-dev-shm-usage"),
      *(f"--user-data-dir={profile}", "--remote-debugging-port=0"),
      "about:blank",
    ],
    stdout=subprocess.DEVNULL,
    stderr=subprocess.PIPE,
    text=True,
  )
  try:
    for line in process.stderr:
      found = re.search(r"DevTools listening on ws://([^/]+)/", line)
      if found:
        break
    with urllib.request.urlopen(f"http://{found[1]}/json") as answer:
      pages = [t for t in json.load(answer) if t["type"] == "page"]
    page = Page(pages[0]["webSocketDebuggerUrl"])
    try:
      for domain in ("Page", "Runtime", "Log"):
        page.send(f"{domain}.enable")
      yield page
    finally:
      page.close()
  finally:
    process.terminate()
    process.wait(30)
    process.stderr.close()
