"""Finds and parses the records of WARC files (ISO 28500).

After a broken record, reading continues at the next line that begins with
"WARC/".
"""

import functools
import io
import logging
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from input_pipeline import charset
from input_pipeline.bad_records import Policy, check_size
from input_pipeline.document import Bad, Document
from input_pipeline.reading import http_response
from input_pipeline.reading.streams import Stream, bad, opened

_LONGEST_LINE = 2**16
_LONGEST_HEADER = 2**18
_HTML = ("text/html", "application/xhtml+xml")


class Frame(NamedTuple):
  """A record and its position in a file.

  number: from 1 on.
  member: offset of its gzip member in the file.
  within: offset of the record in the member's content.
  start, size: its span in the file's content, in bytes.
  content: its header and block; b"" if it has another type than requested.
  reason: why it is bad; "" if it is not.
  """

  number: int
  member: int
  within: int
  start: int
  size: int
  content: bytes
  reason: str


class _Scanner:
  """The current line of a stream and its position."""

  def __init__(self, stream: Stream):
    self.stream = stream
    self.start = self.size = 0
    self.next()

  def next(self) -> None:
    """Advances to the next line; `size` is 0 at the end."""
    self.start += self.size
    self.place = self.stream.place()
    self.line, self.size = self.stream.line(_LONGEST_LINE)

  def blank(self) -> bool:
    """Whether there is a line and it is empty."""
    return bool(self.line) and not self.line.strip()

  def begins(self) -> bool:
    """Whether a record begins here."""
    return self.line.startswith(b"WARC/")


class _MalformedError(Exception):
  """A record whose end is not known, for the reason in the message."""


def frames(stream: Stream, kind: str, policy: Policy) -> Iterator[Frame]:
  """Yields all records in order; only one WARC-Type with its content."""
  scan = _Scanner(stream)
  number = 0
  while scan.size:
    if scan.blank():
      scan.next()
      continue
    number += 1
    start, place = scan.start, scan.place
    try:
      content, reason = _record(scan, kind, policy)
    except _MalformedError as error:
      while scan.size and not (scan.begins() and scan.start > start):
        scan.next()
      yield Frame(number, *place, start, scan.start - start, b"", str(error))
      continue
    size = scan.start + scan.size - start
    yield Frame(number, *place, start, size, content, reason)
    scan.next()


def _record(scan: _Scanner, kind: str, policy: Policy) -> tuple[bytes, str]:
  """(content, why it is bad) of the record that begins at a line."""
  header, wanted, length = _header(scan, kind)
  held = length if wanted and length <= policy.max_record_bytes else 0
  content = scan.stream.read(held)
  passed = len(content) + scan.stream.skip(length - held)
  scan.size += passed
  if passed < length:
    raise _MalformedError("it ends too early")
  if not wanted:
    return b"", ""
  try:
    check_size(length, "", policy)
  except ValueError as error:
    return b"", str(error).removeprefix(": ")
  return header + content, ""


def _header(scan: _Scanner, kind: str) -> tuple[bytes, bool, int]:
  """(the header, whether it has this WARC-Type, the block's length)."""
  if not scan.begins():
    raise _MalformedError("not a WARC record")
  header, found = [scan.line], {}
  size = scan.size
  while not scan.blank():
    scan.next()
    size += scan.size
    if not scan.size:
      raise _MalformedError("it ends in its header")
    if not scan.line or size > _LONGEST_HEADER or scan.begins():
      raise _MalformedError("its header has no end")
    header.append(scan.line)
    name, _, value = scan.line.partition(b":")
    found[name.strip().lower()] = value.strip()
  length = found.get(b"content-length", b"")
  if not length.isdigit() or len(length) > 18:
    raise _MalformedError("its header has no Content-Length")
  wanted = found.get(b"warc-type", b"").lower() == kind.encode()
  return b"".join(header), wanted, int(length)


Decode = Callable[[str, bytes, Policy], Document | None]


def documents(
  path: str, kind: str, decode: Decode, policy: Policy, name: str
) -> Iterator[Document | Bad]:
  """Yields the decoded records of one WARC-Type in a file."""
  name = name or path
  try:
    with opened(path) as stream:
      for frame in frames(stream, kind, policy):
        record = f"{name}#{frame.number}"
        if frame.reason:
          yield bad(record, frame.reason)
        elif frame.content:
          try:
            found = decode(record, frame.content, policy)
          except ValueError as error:
            yield bad(record, error)
            continue
          if found is not None:
            yield found
  except ValueError as error:
    yield bad(name, error, path)


def page(name: str, content: bytes, policy: Policy) -> Document | None:
  """The HTML of a response with status 200; None for other responses.

  The charset that HTTP declares, if it does, is the field "charset".

  Raises:
    ValueError: it is malformed, or the page is larger than
      `max_record_bytes`.
  """
  record = _parsed(name, content)
  try:
    http = http_response.parse(record.raw_stream.read())
  except ValueError as error:
    raise ValueError(f"{name}: {error}") from None
  if http is None:
    address = record.rec_headers.get_header("WARC-Target-URI") or ""
    if address and not address.startswith(("http:", "https:")):
      return None  # Such as dns:, which Heritrix archives.
    raise ValueError(f"{name}: it has no HTTP status line")
  if http.status != 200:
    return None
  declared = http.headers.get("content-type")
  mime = _mime(declared)
  if mime not in _HTML:
    return None
  html = http_response.content(http, name, policy)
  fields = _fields(record, mime)
  label = charset.of_content_type(declared)
  if label:
    fields["charset"] = label
  return Document(name, "", fields, html)


def conversion(name: str, content: bytes, policy: Policy) -> Document | None:
  """The text of a conversion record.

  Raises:
    ValueError: it is malformed, or neither UTF-8 nor in the encoding that its
      header declares.
  """
  record = _parsed(name, content)
  body = record.raw_stream.read()
  declared = record.rec_headers.get_header("Content-Type") or ""
  text = charset.text(body, charset.of_content_type(declared))
  if text is None:
    try:
      text = body.decode()
    except UnicodeDecodeError as error:
      raise ValueError(f"{name}: not UTF-8 at byte {error.start}") from None
  return Document(name, text, _fields(record, _mime(declared)))


def _parsed(name: str, content: bytes) -> Any:
  """A record as parsed by warcio."""
  try:
    parse = _loader().parse_record_stream
    # It knows HTTP/1 only; HTTP is parsed by http_response.
    return parse(io.BytesIO(content), known_format="warc", no_record_parse=True)
  except ModuleNotFoundError:
    raise ValueError(
      f"{name}: WARC and WET files need warcio, which is not installed: "
      "pip install -e '.[clean]'"
    ) from None
  except Exception as error:  # of any kind, if the header is malformed
    raise ValueError(f"{name}: not a WARC record: {error}") from None


@functools.cache
def _loader() -> Any:
  from warcio.recordloader import ArcWarcRecordLoader

  # It logs a line for each address with a space in it.
  logging.getLogger("warcio.recordloader").setLevel(logging.ERROR)
  return ArcWarcRecordLoader()


def _mime(content_type: str | None) -> str:
  return re.split("[;,]", content_type or "")[0].strip().lower()


def _fields(record: Any, mime: str) -> dict[str, str]:
  header = record.rec_headers.get_header
  return {
    "url": header("WARC-Target-URI") or "",
    "date": header("WARC-Date") or "",
    "mime": mime,
  }
