"""Parses HTTP responses as archives keep them, and decodes their bodies."""

import re
import zlib
from collections.abc import Callable
from typing import NamedTuple

from input_pipeline.bad_records import Policy, check_size

_STATUS = re.compile(rb"HTTP/\d(?:\.\d)?[ \t]+(\d{3})(?!\d)", re.IGNORECASE)
_END = re.compile(rb"\r?\n\r?\n")
_CHUNK = re.compile(rb"[ \t]*([0-9a-fA-F]{1,8})[ \t]*(?:;[^\n]{0,4096})?\r?\n")
# A line of a chunk's size that is shorter may have been cut.
_SHORT = 16
_ZEROS = re.compile(rb"\0*")
_GZIP = b"\x1f\x8b"
# A frame, or one that is to be skipped (RFC 8878, section 3.1).
_ZSTD = re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18")
_ZSTD_WINDOW = 2**27
# Small, since a copy of what follows a member is made for each.
_STEP = 2**12
# Bytes that a page has not, save one in UTF-16.
_CONTROL = re.compile(rb"[\0-\x08\x0b\x0e-\x1a\x1c-\x1f\x7f]")
_MARKS = (b"\xff\xfe", b"\xfe\xff")
_HEAD = 2**10
# Codings in a row that are undone; real servers send one or two.
_MOST_CODINGS = 4

# Without the magic number of the first three a body is not compressed so. The
# last two are no content encodings, but servers send them.
_HARMLESS = ("gzip", "x-gzip", "zstd", "identity", "none", "utf-8", "utf8")

# (output of at most a few KiB above the limit, whether the body was complete)
Decoded = tuple[bytes, bool]


class Response(NamedTuple):
  """A response: its status, headers by lower-case name, and body as sent."""

  status: int
  headers: dict[str, str]
  body: bytes


def parse(block: bytes) -> Response | None:
  """The response in a block of bytes; None if it does not begin with HTTP/.

  Interim responses (100, 103) before it are skipped. Values of a header that
  is repeated are joined by commas.

  Raises:
    ValueError: the status line is malformed.
  """
  while True:
    if block[:5].upper() != b"HTTP/":
      return None
    match = _STATUS.match(block)
    if not match:
      line = block[:60].partition(b"\n")[0].strip()
      raise ValueError(f"its HTTP status line {line!r} is malformed")
    end = _END.search(block)
    head = block[: end.start()] if end else block
    body = block[end.end() :] if end else b""
    status = int(match[1])
    if not 100 <= status < 200 or body[:5].upper() != b"HTTP/":
      return Response(status, _headers(head), body)
    block = body


def _headers(head: bytes) -> dict[str, str]:
  found: dict[str, str] = {}
  name = ""
  for line in head.decode("latin-1").split("\n")[1:]:
    value = line.strip()
    if line[:1] not in (" ", "\t"):
      name, _, value = (part.strip() for part in line.partition(":"))
      name = name.lower()
    if name and value:
      found[name] = f"{found[name]}, {value}" if name in found else value
  return found


def content(response: Response, name: str, policy: Policy) -> bytes:
  """The body without chunks and compression, up to `max_record_bytes`.

  An archive may keep the headers of a body that it decoded: such a body is
  recognized and kept. Of a compressed body that was cut, what is intact is
  returned.

  Raises:
    ValueError: it is broken, unknown or too large, or a library is missing.
  """
  body = response.body
  try:
    transfer = _codings(response.headers.get("transfer-encoding", ""))
    if "chunked" in transfer:
      body = dechunked(body)
    codings = _codings(response.headers.get("content-encoding", ""))
    codings += [each for each in transfer if each != "chunked"]
    if len(codings) > _MOST_CODINGS:
      raise ValueError(f"its body has {len(codings)} content encodings")
    # The innermost is listed first. A page never begins as gzip does.
    for coding in [*reversed(codings), "gzip"]:
      body = _undone(coding, body, policy.max_record_bytes)
      check_size(len(body), name, policy, "at least ")
  except ValueError as error:
    reason = str(error)
    raise ValueError(
      reason if reason.startswith(name) else f"{name}: {reason}"
    ) from None
  return body


def _codings(value: str) -> list[str]:
  return [each for each in re.split(r"[,\s]+", value.lower()) if each]


def dechunked(body: bytes) -> bytes:
  """A body without the lines of its chunks; unchanged if it has none.

  Raises:
    ValueError: what follows a chunk is not the next one.
  """
  parts: list[bytes] = []
  at = 0
  while at < len(body):
    match = _CHUNK.match(body, at)
    if not match:
      if not parts:
        return body
      if len(body) - at < _SHORT and b"\n" not in body[at:]:
        break  # It was cut within the line.
      raise ValueError(f"its chunked body is broken at byte {at}")
    size = int(match[1], 16)
    if not size:
      break
    start = match.end()
    at = start + size
    parts.append(body[start:at])
    line_end = body[at : at + 2]
    if line_end and line_end != b"\r\n" and line_end[:1] not in (b"\n", b"\r"):
      if len(parts) == 1:
        return body  # It began with what looked like a size.
      raise ValueError(f"its chunked body is broken at byte {at}")
    at += 2 if line_end == b"\r\n" else 1
  return b"".join(parts)


def _undone(coding: str, body: bytes, most: int) -> bytes:
  """A body without one content encoding, as far as it has it."""
  decode: Callable[[bytes, int], Decoded]
  if body.startswith(_GZIP):
    decode = _gunzip
  elif _ZSTD.match(body):
    decode = _unzstd
  elif coding == "deflate":
    decode = _inflate
  elif coding == "br":
    if _plain(body):
      return body
    decode = _unbrotli
  elif coding in _HARMLESS or _plain(body):
    return body
  else:
    raise ValueError(f"Content-Encoding {coding[:40]!r} is unknown")
  try:
    found, whole = decode(body, most)
  except _BrokenError as error:
    if _plain(body):
      return body
    raise ValueError(f"its body is broken: {error}") from None
  return body if not whole and len(found) <= most and _plain(body) else found


def _plain(body: bytes) -> bool:
  """Whether a body looks like a page that is not compressed."""
  if body.startswith(_MARKS):
    return True
  head = body[:_HEAD]
  return b"<" in head and not _CONTROL.search(head)


class _BrokenError(Exception):
  """A body that is not in this encoding, for the reason in the message."""


def _members(body: bytes, bits: int, most: int) -> tuple[bytes, bool, int]:
  """(output, whether the stream ended, its size) of one zlib stream."""
  parts: list[bytes] = []
  at, room = 0, most + 1
  inflater = zlib.decompressobj(bits)
  view = memoryview(body)
  try:
    while room and not inflater.eof and at < len(body):
      step = view[at : at + _STEP]
      parts.append(inflater.decompress(step, room))
      room -= len(parts[-1])
      left = len(inflater.unused_data) + len(inflater.unconsumed_tail)
      at += len(step) - left
  except zlib.error as error:
    raise _BrokenError(str(error)) from None
  return b"".join(parts), inflater.eof, at


def _gunzip(body: bytes, most: int) -> Decoded:
  """All members; what follows them and is none is ignored, as gzip does."""
  parts: list[bytes] = []
  at, total, whole = 0, 0, True
  while whole and total <= most and body.startswith(_GZIP, at):
    found, whole, size = _members(memoryview(body)[at:], 31, most - total)
    parts += [found] if found else []
    total += len(found)
    at = _ZEROS.match(body, at + size).end()
  return b"".join(parts), whole


def _inflate(body: bytes, most: int) -> Decoded:
  """As RFC 9110 has it, with zlib's header, or without, as some servers do."""
  found: list[Decoded] = []
  reason = ""
  for bits in (15, -15):
    try:
      output, ended, size = _members(body, bits, most)
    except _BrokenError as error:
      reason = reason or str(error)
      continue
    whole = ended and not body[size:].strip(b"\0\r\n")
    if whole or len(output) > most:
      return output, whole
    found.append((output, False))
  if not found:
    raise _BrokenError(reason)
  return found[0]


def _unzstd(body: bytes, most: int) -> Decoded:
  try:
    import zstandard
  except ModuleNotFoundError:
    raise _missing("zstd", "zstandard") from None
  inflater = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
  parts: list[bytes] = []
  total = 0
  try:
    with inflater.stream_reader(body, read_across_frames=True) as reader:
      while total <= most and (piece := reader.read(most + 1 - total)):
        parts.append(piece)
        total += len(piece)
  except zstandard.ZstdError as error:
    raise _BrokenError(str(error)) from None
  return b"".join(parts), True


def _unbrotli(body: bytes, most: int) -> Decoded:
  try:
    import brotli
  except ModuleNotFoundError:
    raise _missing("br", "brotli") from None
  inflater = brotli.Decompressor()
  try:
    parts = [inflater.process(body, output_buffer_limit=most + 1)]
    total = len(parts[0])
    while total <= most and not inflater.can_accept_more_data():
      parts.append(inflater.process(b"", output_buffer_limit=most + 1))
      total += len(parts[-1])
  except brotli.error as error:
    raise _BrokenError(str(error)) from None
  # Its limit is one for blocks: the last may pass it.
  return b"".join(parts)[: most + 1], inflater.is_finished()


def _missing(coding: str, library: str) -> ValueError:
  return ValueError(
    f"Content-Encoding {coding!r} needs {library}, which is not installed: "
    "pip install -e '.[clean]'"
  )
