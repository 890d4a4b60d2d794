"""Reads remote files in order: by http(s), or by a file system of Beam.

A broken http(s) download continues where it stopped.
"""

import http.client
import time
import urllib.error
import urllib.request
from typing import Any

from input_pipeline.reading import files

_TIMEOUT = 60.0  # seconds without a byte
_TRIES = 5
_WAIT = 1.0  # seconds before the second try, doubled for each after it


def is_remote(path: str) -> bool:
  """Whether a path has a scheme, such as https:// or gs://."""
  return "://" in path


def is_web(path: str) -> bool:
  """Whether a path is an http(s) address, below which nothing is listed."""
  return path.startswith(("http://", "https://"))


def opened(url: str) -> Any:
  """Opens a remote file for reading in order.

  Raises:
    ValueError: from `read`, after several failed attempts.
  """
  return _Remote(url) if is_web(url) else files.opened(url)


class _Remote:
  def __init__(self, url: str):
    self._url = url
    self._answer: Any = None
    self._offset = 0
    self._left: int | None = None  # bytes left, as announced by the server

  def read(self, size: int = -1) -> bytes:
    """Reads as a file does; at least one byte except at the end."""
    error: Any = None
    for attempt in range(_TRIES):
      if attempt:
        time.sleep(_WAIT * 2 ** (attempt - 1))
      try:
        self._open()
        data = self._answer.read1(size)
        if data or not self._left:
          self._offset += len(data)
          if self._left is not None:
            self._left -= len(data)
          return data
        error = "it ends too early"
      except urllib.error.HTTPError as failed:
        error = f"HTTP status {failed.code}"
        failed.close()
        # A missing or forbidden file stays so.
        if failed.code < 500 and failed.code not in (408, 429):
          break
      except (OSError, http.client.HTTPException) as failed:
        error = getattr(failed, "reason", None) or failed
      self.close()
    raise ValueError(f"{self._url}: {error or 'no answer'}")

  def _open(self) -> None:
    if self._answer is not None:
      return
    request = urllib.request.Request(
      self._url, headers={"Accept-Encoding": "identity"}
    )
    if self._offset:
      request.add_header("Range", f"bytes={self._offset}-")
    self._answer = urllib.request.urlopen(request, timeout=_TIMEOUT)
    length = self._answer.headers.get("Content-Length", "")
    self._left = int(length) if length.isdecimal() else None
    # A server that does not support ranges begins at the start.
    missing = self._offset if self._answer.status != 206 else 0
    while missing:
      data = self._answer.read1(min(missing, 2**20))
      if not data:
        raise OSError("it ends too early")
      missing -= len(data)
      if self._left is not None:
        self._left -= len(data)

  def close(self) -> None:
    if self._answer is not None:
      self._answer.close()
      self._answer = None
