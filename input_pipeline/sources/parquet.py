"""parquet:GLOB, read at random, a row group at a time."""

import functools
from typing import Any, NamedTuple

import numpy as np

from input_pipeline.bad_records import Policy
from input_pipeline.reading.columns import column, strings
from input_pipeline.reading.formats import parquet as files
from input_pipeline.reading.paths import find_files, fingerprint
from input_pipeline.sources import Source

# Row groups that are kept decoded: rows that are near are read together.
_GROUPS = 2
# More rows than a group has, whose header says so, have no place here.
_MOST_ROWS = 2**40


class _Group(NamedTuple):
  """A row group, or a file that cannot be read and counts as one row.

  first: the number in its file of its first row.
  gaps: the columns of which it says that cells are missing.
  error: what is wrong with it, or "".
  """

  path: str
  number: int
  first: int
  rows: int
  gaps: frozenset[str] = frozenset()
  error: str = ""


def _groups(path: str, policy: Policy) -> tuple[list[_Group], list]:
  """The row groups of a file, and its columns as (name, pyarrow type)."""
  found, first = [], 0
  with files.parquet_file(path, policy) as file, files.readable(path):
    for number in range(file.num_row_groups):
      group = file.metadata.row_group(number)
      if not 0 <= group.num_rows <= _MOST_ROWS:
        raise ValueError(f"{path}: a row group of {group.num_rows:,} rows")
      leaves = [group.column(i) for i in range(group.num_columns)]
      gaps = frozenset(c.path_in_schema for c in leaves if _has_gaps(c))
      found.append(_Group(path, number, first, group.num_rows, gaps))
      first += group.num_rows
    columns = [(field.name, field.type) for field in file.schema_arrow]
  if not first:
    raise ValueError(f"{path}: holds no row")
  names = [name for name, _ in columns]
  twice = [name for i, name in enumerate(names) if name in names[:i]]
  if twice:
    raise ValueError(f"{path}: the column {twice[0]!r} is there twice")
  return found, columns


def _has_gaps(leaf: Any) -> bool:
  statistics = leaf.statistics
  known = statistics is not None and statistics.has_null_count
  return bool(known and statistics.null_count)


def parquet(pattern: str, policy: Policy = Policy()) -> dict[str, Source]:
  """parquet:GLOB, a row a record, the columns the fields.

  Numbers are of the column's type; of integers float64 where some are missing,
  and what is missing is NaN there. Texts and bytes are objects, empty where
  they are missing; lists of numbers become arrays; other values are as JSON
  holds them. All files must have the same columns.

  A file that cannot be read, or holds no row, is an error; under "skip" it is
  one bad record.
  """
  paths = find_files(pattern, f"parquet:{pattern}")
  groups: list[_Group] = []
  columns: list = []
  for path in paths:
    try:
      found, has = _groups(path, policy)
      columns = columns or has
      if has != columns:
        raise ValueError(f"{path}: its columns are not those of {paths[0]}")
      groups += found
    except ValueError as error:
      if not policy.skip:
        raise
      groups.append(_Group(path, 0, 0, 1, error=str(error)))
  if not columns:
    raise ValueError(groups[0].error)
  kinds = [
    _kind(kind, any(name in group.gaps for group in groups))
    for name, kind in columns
  ]
  source = _source(groups, [name for name, _ in columns], kinds, policy)
  return {"all": source._replace(fingerprint=fingerprint(paths))}


def _source(
  groups: list[_Group], names: list[str], kinds: list, policy: Policy
) -> Source:
  ends = np.cumsum([group.rows for group in groups], dtype=np.int64)
  table = functools.lru_cache(_GROUPS)(functools.partial(_table, policy=policy))

  def place(index: int) -> tuple[_Group, int]:
    g = int(np.searchsorted(ends, index, side="right"))
    return groups[g], int(index - (ends[g] - groups[g].rows))

  def name(index: int) -> str:
    group, row = place(index)
    return group.path if group.error else f"{group.path}:{group.first + row}"

  def read(indices: np.ndarray) -> dict[str, np.ndarray]:
    places = [place(int(index)) for index in np.asarray(indices, np.int64)]
    order = sorted(range(len(places)), key=lambda i: places[i][0][:2])
    cells: list[list] = [[None] * len(places) for _ in names]
    for i in order:
      group, row = places[i]
      columns = table(group).columns
      with files.readable(f"{group.path}:{group.first + row}"):
        for values, chunks in zip(cells, columns, strict=True):
          values[i] = chunks[row].as_py()
    return {
      n: _column(values, kind)
      for n, values, kind in zip(names, cells, kinds, strict=True)
    }

  return Source(int(ends[-1]), read, name)


def _table(group: _Group, policy: Policy) -> Any:
  """A row group, its texts in dictionaries."""
  if group.error:
    raise ValueError(group.error)
  with (
    files.parquet_file(group.path, policy) as file,
    files.readable(f"{group.path}:{group.first}"),
  ):
    files.group_rows(file, group.number, policy)
    table = file.read_row_group(group.number, use_threads=False)
  if table.num_rows != group.rows:
    raise ValueError(f"{group.path}: was changed while it was read")
  return table


def _kind(kind: Any, missing: bool) -> Any:
  """A column's NumPy type, its empty value, or None for what holds others."""
  from pyarrow import types

  if types.is_dictionary(kind):
    kind = kind.value_type
  if types.is_integer(kind):
    return np.dtype(np.float64 if missing else kind.to_pandas_dtype())
  if types.is_floating(kind):
    return np.dtype(kind.to_pandas_dtype())
  if types.is_boolean(kind) and not missing:
    return np.dtype(bool)
  if types.is_string(kind) or types.is_large_string(kind):
    return ""
  if types.is_binary(kind) or types.is_large_binary(kind):
    return b""
  return None


def _column(values: list, kind: Any) -> np.ndarray:
  if isinstance(kind, np.dtype):
    if kind.kind == "f":
      values = [np.nan if value is None else value for value in values]
    elif None in values:
      raise ValueError("a value is missing, where the file says that none is")
    return np.array(values, kind)
  if kind is not None:
    return strings([kind if value is None else value for value in values])
  return column([files.plain(value) for value in values])
