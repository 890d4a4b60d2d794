"""csv:GLOB: tables with a header, with random access to the rows."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from input_pipeline.bad_records import Policy
from input_pipeline.reading import line_records, text_options
from input_pipeline.reading.columns import integers, strings
from input_pipeline.reading.formats import csv as tables
from input_pipeline.reading.inflate import is_compressed
from input_pipeline.reading.line_records import Spans
from input_pipeline.reading.paths import find_files, fingerprint
from input_pipeline.reading.streams import opened
from input_pipeline.reading.text_options import Options
from input_pipeline.sources import Source

# The types of columns: a column has the last type that any of its cells needs.
_INT, _FLOAT, _STR = range(3)


class _Table(NamedTuple):
  """A file; `like_data` has the cells of its header that look like data."""

  spans: Spans
  names: list[str]
  dialect: tables.Dialect
  kinds: np.ndarray
  like_data: str


def _table(path: str, policy: Policy, options: Options) -> _Table:
  """Locates the rows of a file and infers the types of its columns.

  Raises:
    ValueError: the file cannot be read, or has no row.
  """
  try:
    with opened(path) as stream:
      names, dialect, rows = tables.table(stream, policy, options)
      spans, kinds, repeated = _find(path, rows, names)
  except ValueError as error:
    said = str(error)
    raise ValueError(said if path in said else f"{path}: {said}") from None
  if not len(spans.starts):
    raise ValueError(f"{path}: holds no row")
  if is_compressed(path):
    long = spans.sizes > policy.max_record_bytes
    spans = line_records.hold(spans, long)
  data = [
    name
    for name, kind, again in zip(names, kinds, repeated, strict=True)
    if (kind != _STR and tables.number(name) is not None) or again > 1
  ]
  like_data = ", ".join(name[:40] for name in data[:3])
  if options.header is not True:
    like_data = ""
  return _Table(spans, names, dialect, kinds, like_data)


def _find(
  path: str, rows: Iterable[tables.Row], names: list[str]
) -> tuple[Spans, np.ndarray, list[int]]:
  """Returns the rows, and each column's type and repetitions of its name."""
  places, errors = [], {}
  kinds = [_INT] * len(names)
  filled = [False] * len(names)
  repeated = [0] * len(names)
  for row in rows:
    if row.cells is None:
      errors[len(places)] = f"{path}:{row.number}: {row.reason}"
    else:
      for i, cell in enumerate(row.cells):
        repeated[i] += cell == names[i]
        if kinds[i] < _STR:
          kinds[i] = max(kinds[i], _kind(cell))
          filled[i] = filled[i] or bool(cell.strip())
    places.append((row.start, row.size, row.number))
  starts, sizes, numbers = np.array(places, np.int64).reshape(-1, 3).T
  kinds = np.where(filled, kinds, _STR)
  spans = Spans(path, starts, sizes, numbers, errors=errors)
  return spans, kinds, repeated


def _kind(cell: str) -> int:
  found = tables.number(cell)
  if isinstance(found, int):
    return _INT
  if not cell.strip():
    return _INT  # A missing value has no type.
  return _FLOAT if found is not None else _STR


def csv(rest: str, policy: Policy = Policy()) -> dict[str, Source]:
  """csv:GLOB: a record per row; the header names the fields.

  A column whose cells are all integers is int64, with None for empty cells; one
  of numbers is float64, with NaN for empty cells; any other is str, including
  one with "?" for missing values. All files must have the same columns.
  Compressed files are held in memory.

  A file that cannot be read or that holds no row is an error; under "skip" it
  is one bad record.

  Settings follow the pattern, as in csv:GLOB?encoding=gbk&header=no. The
  columns of files without a header are column_1 and so on, or have the names
  given: ?header=text,label. A note says so if a header looks like data.
  """
  pattern, options = text_options.split(rest, "csv", tables.SETTINGS)
  text_options.check_lines(options, f"csv:{rest}")
  paths = find_files(pattern, f"csv:{pattern}")
  known: list[_Table] = []
  files: list[Spans] = []
  for path in paths:
    try:
      table = _table(path, policy, options)
      if known and table.names != known[0].names:
        raise ValueError(
          f"{path} has the columns {', '.join(table.names)}, but "
          f"{known[0].spans.path} has {', '.join(known[0].names)}"
        )
      known.append(table)
      files.append(table.spans)
    except ValueError as error:
      if not policy.skip:
        raise
      files.append(line_records.broken(path, error))
  if not known:
    raise ValueError(next(iter(files[0].errors.values())))
  names = known[0].names
  kinds = np.max([table.kinds for table in known], axis=0)
  dialects = {table.spans.path: table.dialect for table in known}

  def decode(name: str, content: bytes) -> list[str]:
    dialect = dialects[name.rpartition(":")[0]]
    text = content.decode(options.encoding).removeprefix("\ufeff")
    found = [r for r in tables.parse(text, dialect) if r]
    if len(found) != 1 or len(found[0]) != len(names):
      raise ValueError(f"{name}: was changed while it was read")
    return found[0]

  records = line_records.joined(files, policy, decode)

  def read(indices: np.ndarray) -> dict[str, np.ndarray]:
    found = records.read(indices)
    return {
      name: _column([row[i] for row in found], kinds[i])
      for i, name in enumerate(names)
    }

  headless = [table for table in known if table.like_data]
  note = headless and (
    f"{headless[0].spans.path}: its first row ({headless[0].like_data}, …) was"
    " read as the header, but looks like data; if it is, add ?header=no or"
    " ?header=NAMES to the source"
  )
  source = Source(records.length, read, records.name, note=note or "")
  return {"all": source._replace(fingerprint=fingerprint(paths, options))}


def _column(cells: list[str], kind: int) -> np.ndarray:
  if kind == _STR:
    return strings(cells)
  if kind == _INT:
    return integers([int(cell) if cell.strip() else None for cell in cells])
  return np.array([float(cell) if cell.strip() else np.nan for cell in cells])
