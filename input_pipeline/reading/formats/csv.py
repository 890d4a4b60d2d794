"""Tables of comma-separated values as documents."""

import csv
import itertools
import math
import re
import sys
from collections.abc import Iterator
from typing import NamedTuple

from input_pipeline.bad_records import Policy, check_size
from input_pipeline.document import Bad, Document
from input_pipeline.reading import records
from input_pipeline.reading.streams import Stream, bad, opened

# Longer ones do not fit into int64, and are names more often than amounts.
_INTEGER = re.compile(r"[+-]?(?:0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(
  r"[+-]?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
  r"|[0-9]+[eE][+-]?[0-9]+)"
)
_DELIMITERS = ",;\t|"


class Dialect(NamedTuple):
  """How the cells of a file are apart, as its first line tells.

  delimiter: the one of , ; tab | that stands in the header most often.
  spaced: a space after each delimiter, which is no part of a cell.
  """

  delimiter: str
  spaced: bool


class Row(NamedTuple):
  """A record of a table.

  start, size: its bytes in the content.
  number: of its first line, from 1 on.
  cells: as they are spelt; None where the row is bad.
  reason: what is wrong with it.
  """

  start: int
  size: int
  number: int
  cells: list[str] | None
  reason: str = ""


def number(cell: str) -> int | float | None:
  """The number that a whole cell spells, if it does; white space aside.

  Spelt with leading zeros, or with more than 18 digits, it is a name.
  """
  cell = cell.strip()
  if _INTEGER.fullmatch(cell):
    return int(cell)
  if _FLOAT.fullmatch(cell) and math.isfinite(found := float(cell)):
    return found
  return None


def parse(line: str, dialect: Dialect) -> list[list[str]]:
  """The rows of some text; ValueError where it is not CSV."""
  try:
    return list(_parser(iter([line]), dialect))
  except csv.Error as error:
    raise ValueError(f"not CSV: {error}") from None


def _parser(lines: Iterator[str], dialect: Dialect):
  # The parser's own limit is the process's; ours is `max_record_bytes`.
  csv.field_size_limit(sys.maxsize)
  return csv.reader(
    lines, delimiter=dialect.delimiter, skipinitialspace=dialect.spaced
  )


class _BadLineError(Exception):
  """Of a line; the next one can be read."""


class _Lines:
  """The lines of a stream, one at a time, that know where they are.

  start, number: of the row under way.
  end, last: of the line that was read last.
  """

  def __init__(self, stream: Stream, policy: Policy):
    self._stream = stream
    self._policy = policy
    self.end = self.last = 0
    self.begin()

  def begin(self) -> None:
    """The row under way is over."""
    self.start, self.number = self.end, self.last + 1

  def next(self) -> str | None:
    """The next line; None at the end. _BadLineError for one that is bad."""
    line, size = self._stream.line(self._policy.max_record_bytes)
    if not size:
      return None
    self.end += size
    self.last += 1
    # Of a row of many lines too: a quote may never be closed.
    try:
      check_size(self.end - self.start, "", self._policy)
      return line.decode()
    except UnicodeDecodeError as error:
      raise _BadLineError(f"not UTF-8 at byte {error.start}") from None
    except ValueError as error:
      raise _BadLineError(str(error).removeprefix(": ")) from None


def table(
  stream: Stream, policy: Policy
) -> tuple[list[str], Dialect, Iterator[Row]]:
  """(the header's names, the dialect, the rows) of a table with a header.

  Raises:
    ValueError: there is no header, or a name stands in it twice.
  """
  lines = _Lines(stream, policy)
  try:
    first = lines.next()
    while first is not None and not first.strip():
      lines.begin()
      first = lines.next()
  except _BadLineError as error:
    raise ValueError(f"its header is bad: {error}") from None
  if first is None:
    raise ValueError("holds no header")
  first = first.removeprefix("\ufeff")
  delimiter = max(_DELIMITERS, key=first.count)
  gaps = first.count(delimiter)
  spaced = 0 < gaps == first.count(delimiter + " ")
  dialect = Dialect(delimiter, spaced)
  parser = _parser(itertools.chain([first], iter(lines.next, None)), dialect)
  try:
    names = next(parser)
  except (csv.Error, _BadLineError) as error:
    raise ValueError(f"its header is bad: {error}") from None
  names = [name or f"column_{i + 1}" for i, name in enumerate(names)]
  twice = [name for i, name in enumerate(names) if name in names[:i]]
  if twice:
    raise ValueError(f"the column {twice[0]!r} stands twice in its header")
  return names, dialect, _rows(parser, lines, len(names))


def _rows(parser, lines: _Lines, width: int) -> Iterator[Row]:
  while True:
    lines.begin()
    cells, reason = None, ""
    try:
      cells = next(parser)
    except StopIteration:
      return
    except csv.Error as error:
      reason = f"not CSV: {error}"
    except _BadLineError as error:
      reason = str(error)
    if cells == []:
      continue
    if cells is not None and len(cells) != width:
      reason = f"{len(cells)} cells, where the header has {width}"
      cells = None
    size = lines.end - lines.start
    yield Row(lines.start, size, lines.number, cells, reason)


def read(
  path: str, *, text_key: str, policy: Policy, name: str = ""
) -> Iterator[Document | Bad]:
  """A document of each row, "FILE:line number" its id.

  A cell that is a number as a whole becomes one, an empty cell None. An empty
  `text_key` leaves the text "".

  name: what the file is called; "" for its path.
  """
  name = name or path
  try:
    with opened(path) as stream:
      names, _, rows = table(stream, policy)
      for row in rows:
        record = f"{name}:{row.number}"
        if row.cells is None:
          yield bad(record, row.reason)
          continue
        found = {
          key: value if key == text_key else _value(value)
          for key, value in zip(names, row.cells, strict=True)
        }
        yield records.document(record, found, text_key, table=True)
  except ValueError as error:
    yield bad(name, error, path)


def _value(cell: str) -> int | float | str | None:
  found = number(cell)
  return found if found is not None else cell or None
