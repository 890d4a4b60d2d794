"""csv:GLOB: tables with a header, with random access to the rows."""

from typing import NamedTuple

import numpy as np

from input_pipeline.bad_records import Policy
from input_pipeline.reading import line_records
from input_pipeline.reading.columns import integers, strings
from input_pipeline.reading.formats import csv as tables
from input_pipeline.reading.inflate import is_compressed
from input_pipeline.reading.line_records import Spans
from input_pipeline.reading.paths import find_files, fingerprint
from input_pipeline.reading.streams import opened
from input_pipeline.sources import Source

# The types of columns: a column has the last type that any of its cells needs.
_INT, _FLOAT, _STR = range(3)


class _Table(NamedTuple):
  spans: Spans
  names: list[str]
  dialect: tables.Dialect
  kinds: np.ndarray


def _table(path: str, policy: Policy) -> _Table:
  """Locates the rows of a file and infers the types of its columns.

  Raises:
    ValueError: the file cannot be read, or has no row.
  """
  try:
    with opened(path) as stream:
      names, dialect, rows = tables.table(stream, policy)
      spans, kinds = _find(path, rows, len(names))
  except ValueError as error:
    said = str(error)
    raise ValueError(said if path in said else f"{path}: {said}") from None
  if not len(spans.starts):
    raise ValueError(f"{path}: holds no row")
  if is_compressed(path):
    long = spans.sizes > policy.max_record_bytes
    spans = line_records.hold(spans, long)
  return _Table(spans, names, dialect, kinds)


def _find(path: str, rows, width: int) -> tuple[Spans, np.ndarray]:
  places, errors = [], {}
  kinds = [_INT] * width
  filled = [False] * width
  for row in rows:
    if row.cells is None:
      errors[len(places)] = f"{path}:{row.number}: {row.reason}"
    else:
      for i, cell in enumerate(row.cells):
        if kinds[i] < _STR:
          kinds[i] = max(kinds[i], _kind(cell))
          filled[i] = filled[i] or bool(cell.strip())
    places.append((row.start, row.size, row.number))
  starts, sizes, numbers = np.array(places, np.int64).reshape(-1, 3).T
  kinds = np.where(filled, kinds, _STR)
  spans = Spans(path, starts, sizes, numbers, errors=errors)
  return spans, kinds


def _kind(cell: str) -> int:
  found = tables.number(cell)
  if isinstance(found, int):
    return _INT
  if not cell.strip():
    return _INT  # A missing value has no type.
  return _FLOAT if found is not None else _STR


def csv(pattern: str, policy: Policy = Policy()) -> dict[str, Source]:
  """csv:GLOB: a record per row; the header names the fields.

  A column whose cells are all integers is int64, with None for empty cells; one
  of numbers is float64, with NaN for empty cells; any other is str, including
  one with "?" for missing values. All files must have the same columns.
  Compressed files are held in memory.

  A file that cannot be read or that holds no row is an error; under "skip" it
  is one bad record.
  """
  paths = find_files(pattern, f"csv:{pattern}")
  known: list[_Table] = []
  files: list[Spans] = []
  for path in paths:
    try:
      table = _table(path, policy)
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
    found = [r for r in tables.parse(content.decode(), dialect) if r]
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

  source = Source(records.length, read, records.name)
  return {"all": source._replace(fingerprint=fingerprint(paths))}


def _column(cells: list[str], kind: int) -> np.ndarray:
  if kind == _STR:
    return strings(cells)
  if kind == _INT:
    return integers([int(cell) if cell.strip() else None for cell in cells])
  return np.array([float(cell) if cell.strip() else np.nan for cell in cells])
