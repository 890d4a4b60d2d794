"""Reads tables of comma-separated values as documents."""

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
from input_pipeline.reading.text_options import Options
from input_pipeline.reading.utf8 import flaw

SETTINGS = ("encoding", "header")

# Longer ones do not fit into int64, and are usually identifiers.
_INTEGER = re.compile(r"[+-]?(?:0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(
  r"[+-]?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
  r"|[0-9]+[eE][+-]?[0-9]+)"
)
_DELIMITERS = ",;\t|"


class Dialect(NamedTuple):
  """How the cells of a file are separated, judged by its first line.

  delimiter: the most frequent of , ; tab | in the header.
  spaced: whether a space follows each delimiter and is not part of the cell.
  """

  delimiter: str
  spaced: bool


class Row(NamedTuple):
  """One row of a table.

  start, size: its span in the content, in bytes.
  number: of its first line, from 1 on.
  cells: as they are written; None if the row is bad.
  reason: what is wrong with it.
  """

  start: int
  size: int
  number: int
  cells: list[str] | None
  reason: str = ""


def number(cell: str) -> int | float | None:
  """The number that a cell holds, ignoring white space around it; or None.

  With leading zeros, or more than 18 digits, it counts as text.
  """
  cell = cell.strip()
  if _INTEGER.fullmatch(cell):
    return int(cell)
  if _FLOAT.fullmatch(cell) and math.isfinite(found := float(cell)):
    return found
  return None


def parse(line: str, dialect: Dialect) -> list[list[str]]:
  """The rows of a text; ValueError if it is not CSV."""
  try:
    return list(_parser(iter([line]), dialect))
  except csv.Error as error:
    raise ValueError(f"not CSV: {error}") from None


def _parser(lines: Iterator[str], dialect: Dialect):
  # This limit is global to the process; `max_record_bytes` is ours.
  csv.field_size_limit(sys.maxsize)
  return csv.reader(
    lines, delimiter=dialect.delimiter, skipinitialspace=dialect.spaced
  )


class _BadLineError(Exception):
  """A line is bad; reading can continue with the next one."""


class _Lines:
  """The lines of a stream, one at a time, with their positions.

  start, number: offset and line number at which the current row begins.
  end, last: offset after, and number of, the line that was read last.
  """

  def __init__(self, stream: Stream, policy: Policy, encoding: str):
    self._stream = stream
    self._policy = policy
    self._encoding = encoding
    self.end = self.last = 0
    self.begin()

  def begin(self) -> None:
    """Begins a new row at the current position."""
    self.start, self.number = self.end, self.last + 1

  def next(self) -> str | None:
    """The next line, or None at the end; _BadLineError for a bad line."""
    line, size = self._stream.line(self._policy.max_record_bytes)
    if not size:
      return None
    self.end += size
    self.last += 1
    # Checks rows of many lines as well, since a quote may never be closed.
    try:
      check_size(self.end - self.start, "", self._policy)
      return line.decode(self._encoding)
    except UnicodeDecodeError as error:
      raise _BadLineError(flaw(line, error, self._encoding)) from None
    except ValueError as error:
      raise _BadLineError(str(error).removeprefix(": ")) from None


def table(
  stream: Stream, policy: Policy, options: Options = Options()
) -> tuple[list[str], Dialect, Iterator[Row]]:
  """(the names of the columns, the dialect, the rows) of a table.

  Raises:
    ValueError: there is no first row, or it is a header that repeats a name.
  """
  lines = _Lines(stream, policy, options.encoding)
  try:
    first = lines.next()
    while first is not None and not first.strip():
      lines.begin()
      first = lines.next()
  except _BadLineError as error:
    raise ValueError(f"its header is bad: {error}") from None
  if first is None:
    raise ValueError("has no header")
  first = first.removeprefix("\ufeff")
  delimiter = max(_DELIMITERS, key=first.count)
  gaps = first.count(delimiter)
  spaced = 0 < gaps == first.count(delimiter + " ")
  dialect = Dialect(delimiter, spaced)
  parser = _parser(itertools.chain([first], iter(lines.next, None)), dialect)
  try:
    cells = next(parser)
  except (csv.Error, _BadLineError) as error:
    raise ValueError(f"its header is bad: {error}") from None
  rows: list[Row] = []
  names = cells
  if options.header is not True:
    names = list(options.header or [""] * len(cells))
    size = lines.end - lines.start
    rows = [_row(lines.start, size, lines.number, cells, len(names))]
  names = [name or f"column_{i + 1}" for i, name in enumerate(names)]
  twice = [name for i, name in enumerate(names) if name in names[:i]]
  if twice:
    raise ValueError(
      f"its header names the column {twice[0]!r} twice; if it has no header,"
      " add ?header=no to the source"
    )
  rest = _rows(parser, lines, len(names))
  return names, dialect, itertools.chain(rows, rest)


def _row(start: int, size: int, line: int, cells: list[str], width: int) -> Row:
  """A row, which is bad unless it has as many cells as there are columns."""
  if len(cells) == width:
    return Row(start, size, line, cells)
  reason = f"{len(cells)} cells, but the header has {width}"
  return Row(start, size, line, None, reason)


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
    place = (lines.start, lines.end - lines.start, lines.number)
    if cells is None:
      yield Row(*place, None, reason)
    else:
      yield _row(*place, cells, width)


def read(
  path: str,
  *,
  text_key: str,
  policy: Policy,
  name: str = "",
  options: Options = Options(),
) -> Iterator[Document | Bad]:
  """Yields one document per row, with the id "FILE:line number".

  Cells that hold a number become numbers, and empty cells None. If `text_key`
  is empty, so is the text.

  name: the name of the file in ids and errors; "" for its path.
  options: the encoding, and whether there is a header.
  """
  name = name or path
  try:
    with opened(path) as stream:
      names, _, rows = table(stream, policy, options)
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
