"""Downloads by http(s): verified, and continued where they were interrupted.

What has arrived is in PATH.part. PATH itself exists only when it is complete
and its digest is the expected one.
"""

import hashlib
import http.client
import os
import pathlib
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable

from input_pipeline.datasets import File

_TIMEOUT = 60.0  # seconds without a byte
_TRIES = 5
_WAIT = 1.0  # seconds before the second try, doubled for each after it
_MOST = 2**30  # bytes of a file whose size is not known
_CHUNK = 2**20
_REPORT = 2e7  # bytes between two lines about the progress


def sha256_of(path: pathlib.Path) -> str:
  """The digest of a file, in hexadecimal digits."""
  with open(path, "rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def download(
  file: File, path: pathlib.Path, say: Callable[[str], None]
) -> None:
  """Downloads a file to `path`, unless it is there already.

  Args:
    file: with its address.
    path: where it goes; its folder is made.
    say: takes each line for the user.

  Raises:
    ValueError: the file cannot be reached, is refused, ends too early again
      and again, is larger than it should be, or has another digest; one line.
    OSError: it cannot be written; with the name of the file.
  """
  if path.is_file():
    if file.sha256 in (None, sha256_of(path)):
      say(f"  {path} was downloaded before")
      return
    path.unlink()
  path.parent.mkdir(parents=True, exist_ok=True)
  part = path.with_name(f"{path.name}.part")
  if file.sha256 is None:
    # Two halves of different versions would not be noticed.
    part.unlink(missing_ok=True)
  error = ""
  for attempt in range(_TRIES):
    if attempt:
      wait = _WAIT * 2 ** (attempt - 1)
      say(f"  {error}; the next try is in {wait:.0f} s")
      time.sleep(wait)
    try:
      error = _continue(file, part, say)
    except urllib.error.HTTPError as failed:
      error = f"HTTP status {failed.code} {failed.reason}".strip()
      failed.close()
      if failed.code == 416:  # `part` is longer than the file
        _drop(part)
        continue
      # That the file is not there, or not for us, will not change.
      if failed.code < 500 and failed.code not in (408, 429):
        break
    except urllib.error.URLError as failed:
      error = f"cannot be reached: {failed.reason}"
    except (http.client.HTTPException, ConnectionError, TimeoutError) as failed:
      error = f"the connection broke: {failed or type(failed).__name__}"
    if not error:
      _verify(file, part, say)
      os.replace(part, path)
      return
  kept = _size(part)
  again = f"; {kept:,} bytes are kept, and the same command continues"
  raise ValueError(f"{file.address}: {error}{again if kept else ''}")


def _continue(file: File, part: pathlib.Path, say) -> str:
  """Appends what is missing to `part`; returns what went wrong, or ""."""
  have = _size(part)
  if file.size is not None and have >= file.size:
    return ""
  request = urllib.request.Request(
    file.address, headers={"Accept-Encoding": "identity"}
  )
  if have:
    request.add_header("Range", f"bytes={have}-")
  most = _MOST if file.size is None else file.size
  with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
    length = answer.headers.get("Content-Length", "")
    if answer.status == 206 and _start(answer) == have:
      say(f"  {file.address}: continues after {have:,} bytes")
    else:
      say(f"  {file.address}")
      have = 0
    expected = have + int(length) if length.isdecimal() else file.size
    if expected is not None and expected > most:
      _drop(part)
      raise ValueError(
        f"{file.address}: {expected:,} bytes, where {most:,} are expected"
      )
    with _Output(part, "r+b" if have else "wb") as output:
      output.seek(have)
      while data := answer.read1(_CHUNK):
        have += len(data)
        if have // _REPORT > (have - len(data)) // _REPORT:
          say(f"  {have / 1e6:.0f} MB")
        if have > most:
          break
        output.write(data)
  if have > most:
    _drop(part)
    raise ValueError(f"{file.address}: more than the {most:,} bytes expected")
  if expected is not None and have < expected:
    return f"it ends after {have:,} of {expected:,} bytes"
  return ""


class _Output:
  """A file that is written; its errors name it, as those of open() do."""

  def __init__(self, path: pathlib.Path, mode: str):
    self._path = str(path)
    self._file = open(path, mode)  # noqa: SIM115  (__exit__ closes it)

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self._named(self._file.close)

  def seek(self, offset: int) -> None:
    self._file.seek(offset)

  def write(self, data: bytes) -> None:
    self._named(self._file.write, data)

  def _named(self, function, *args) -> None:
    try:
      function(*args)
    except OSError as error:
      raise OSError(error.errno, error.strerror, self._path) from None


def _start(answer) -> int:
  """The offset that a 206 answer begins at, or -1."""
  found = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
  return int(found[1]) if found else -1


def _size(part: pathlib.Path) -> int:
  return part.stat().st_size if part.is_file() else 0


def _drop(part: pathlib.Path) -> None:
  part.unlink(missing_ok=True)


def _verify(file: File, part: pathlib.Path, say) -> None:
  """Raises ValueError, and removes `part`, where its digest is another."""
  found = sha256_of(part)
  if file.sha256 is None:
    say(f"  {file.name}: SHA-256 {found}, not verified: none is on record")
  elif found != file.sha256:
    _drop(part)
    raise ValueError(
      f"{file.address}: its SHA-256 is {found}, where {file.sha256} is"
      " expected; the file was changed or damaged, and is not kept"
    )
