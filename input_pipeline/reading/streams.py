"""Reads files in order, with bounded memory."""

import contextlib
import os
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from common import bounded_file
from input_pipeline.bad_records import Policy, check_size, error_line
from input_pipeline.document import Bad
from input_pipeline.reading import bounded, inflate, remote


class Stream:
  """A stream of decompressed bytes.

  Any method raises LostError where the rest cannot be read.

  ended: whether the last line that was read ended with a newline.
  """

  def __init__(self, pieces: Iterator[tuple[int, bytes]]):
    self._pieces = pieces
    self._piece = b""
    self._at = 0  # in the piece
    self._member = 0
    self._before = 0  # bytes of the member before the piece
    self.ended = False

  def more(self) -> bool:
    """Whether there is another byte."""
    while self._at >= len(self._piece):
      member, piece = next(self._pieces, (0, b""))
      if not piece:
        return False
      if member != self._member:
        self._member, self._before = member, 0
      else:
        self._before += len(self._piece)
      self._piece, self._at = piece, 0
    return True

  def place(self) -> tuple[int, int]:
    """(offset of the gzip member in the file, offset in the member) now."""
    self.more()
    return self._member, self._before + self._at

  def read(self, size: int) -> bytes:
    """The next bytes; fewer than `size` only at the end."""
    parts = []
    while size and self.more():
      part = self._piece[self._at : self._at + size]
      self._at += len(part)
      size -= len(part)
      parts.append(part)
    return b"".join(parts)

  def skip(self, size: int) -> int:
    """Skips bytes; returns how many there were."""
    left = size
    while left and self.more():
      step = min(left, len(self._piece) - self._at)
      self._at += step
      left -= step
    return size - left

  def line(self, most: int) -> tuple[bytes, int]:
    """(the next line including its newline, its size).

    The line is b"" if it is larger than `most`, not counting the newline.
    (b"", 0) is the end.
    """
    parts, size = [], 0
    self.ended = False
    while not self.ended and self.more():
      stop = self._piece.find(b"\n", self._at) + 1
      self.ended = stop > 0
      stop = stop or len(self._piece)
      size += stop - self._at
      if size - self.ended <= most:
        parts.append(self._piece[self._at : stop])
      else:
        parts = []
      self._at = stop
    return b"".join(parts), size


class Line(NamedTuple):
  """A line that is not blank.

  start: offset of its first byte in the content.
  size: without the newline.
  number: from 1 on.
  content: without the newline; None if it is too large.
  """

  start: int
  size: int
  number: int
  content: bytes | None


def lines(stream: Stream, most: int) -> Iterator[Line]:
  """Yields the lines that are not blank; too large ones without content.

  A line is blank if it is empty or one or two bytes of white space. A longer
  line of white space is a bad record.
  """
  start = number = 0
  while True:
    line, size = stream.line(most)
    if not size:
      return
    number += 1
    content = line.removesuffix(b"\n")
    if not line:
      yield Line(start, size - stream.ended, number, None)
    elif len(content) > 2 or content.strip():
      yield Line(start, len(content), number, content)
    start += size


@contextlib.contextmanager
def opened(path: str) -> Iterator[Stream]:
  """Opens a regular or a remote file as a Stream.

  Raises:
    LostError: it cannot be opened.
  """
  try:
    if remote.is_remote(path):
      raw = remote.opened(path)
    else:
      raw = os.fdopen(_descriptor(path), "rb", buffering=0)
    with contextlib.closing(raw):
      yield Stream(_pieces(raw, path))
  except OSError as error:
    raise bounded.failure(path, error) from None


def _pieces(raw: BinaryIO, path: str) -> Iterator[tuple[int, bytes]]:
  """The pieces of a file; LostError if it cannot be read to its end."""
  try:
    yield from inflate.pieces(raw, path)
  except ValueError as error:
    raise bounded.LostError(str(error)) from None


def _descriptor(path: str) -> int:
  try:
    return bounded_file.descriptor(path)
  except ValueError as error:
    raise bounded.LostError(str(error)) from None


def whole(path: str, policy: Policy) -> bytes:
  """The content of a file.

  Raises:
    ValueError: it cannot be read, or is larger than `max_record_bytes`.
  """
  if not remote.is_remote(path) and not inflate.is_compressed(path):
    return bounded.read_file(path, policy)
  with opened(path) as stream:
    content = stream.read(policy.max_record_bytes + 1)
    check_size(len(content), path, policy, "at least ")
    return content


def bad(name: str, error: ValueError | str, path: str = "") -> Bad:
  """A Bad whose reason is one line that names the record.

  error: what is wrong; after a LostError the rest of the file is lost as well.
  path: the file as the error names it. It is replaced by `name`, so that a
    report does not depend on where the data is stored.
  """
  reason = str(error)
  return Bad(
    name,
    error_line(name, reason.replace(path, name) if path else reason),
    isinstance(error, bounded.LostError),
  )
