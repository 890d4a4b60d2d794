"""parquet:GLOB: random access to rows, one row group read at a time."""

import contextlib
import functools
from typing import Any, NamedTuple

import numpy as np

from input_pipeline.bad_records import Policy
from input_pipeline.reading import image_size
from input_pipeline.reading.formats import parquet as files
from input_pipeline.reading.paths import find_files, fingerprint
from input_pipeline.sources import Source
from input_pipeline.sources.parts import arrow

# The number of decoded row groups kept: neighbouring rows are read together.
_GROUPS = 2
# The field of the class, and the most classes that are counted.
_LABEL = "label"
_MOST_CLASSES = 2**20
# A header can claim more rows than a group can have.
_MOST_ROWS = 2**40


class _Group(NamedTuple):
  """A row group, or a file that cannot be read and counts as one row.

  first: the number of its first row in the file.
  largest: of the column "label"; None if the file does not give it.
  error: what is wrong with it, or "".
  """

  path: str
  number: int
  first: int
  rows: int
  largest: int | None = None
  error: str = ""


def _groups(path: str, policy: Policy) -> tuple[list[_Group], Any]:
  """Returns a file's row groups and its schema."""
  found, first = [], 0
  with files.parquet_file(path, policy) as file, files.readable(path):
    for number in range(file.num_row_groups):
      group = file.metadata.row_group(number)
      if not 0 <= group.num_rows <= _MOST_ROWS:
        raise ValueError(f"{path}: a row group of {group.num_rows:,} rows")
      leaves = [group.column(i) for i in range(group.num_columns)]
      largest = next(
        (_largest(c) for c in leaves if c.path_in_schema == _LABEL), None
      )
      found.append(_Group(path, number, first, group.num_rows, largest))
      first += group.num_rows
    schema = file.schema_arrow
  if not first:
    raise ValueError(f"{path}: holds no row")
  names = schema.names
  twice = [name for i, name in enumerate(names) if name in names[:i]]
  if twice:
    raise ValueError(f"{path}: the column {twice[0]!r} occurs twice")
  return found, schema


def _largest(leaf: Any) -> int | None:
  """Returns the largest integer of a column in a row group, if it is given."""
  statistics = leaf.statistics
  if statistics is None or not statistics.has_min_max:
    return None
  return statistics.max if isinstance(statistics.max, int) else None


def parquet(pattern: str, policy: Policy = Policy()) -> dict[str, Source]:
  """parquet:GLOB: a record per row; the columns are the fields.

  Numbers have the column's type; a missing integer is None and a missing float
  NaN. Texts and bytes are objects, empty if missing. Lists of numbers become
  arrays, or ragged fields if their lengths differ in the first row group; other
  values are represented as in JSON. A column of images, {bytes, path} as the
  Hugging Face Hub stores them, holds their bytes. All files must have the same
  columns.

  Integers in "label" are classes: as many as the metadata of Hugging Face's
  `datasets` name, else up to the largest label.

  A file that cannot be read or that holds no row is an error; under "skip" it
  is one bad record.
  """
  return {"all": of_files(find_files(pattern, f"parquet:{pattern}"), policy)}


def of_files(paths: list[str], policy: Policy) -> Source:
  """Returns the rows of some files, concatenated; see `parquet`."""
  groups: list[_Group] = []
  schema = None
  for path in paths:
    try:
      found, has = _groups(path, policy)
      schema = schema or has
      if not has.equals(schema):
        raise ValueError(f"{path}: its columns differ from those of {paths[0]}")
      groups += found
    except ValueError as error:
      if not policy.skip:
        raise
      groups.append(_Group(path, 0, 0, 1, error=str(error)))
  if schema is None:
    raise ValueError(groups[0].error)
  kinds = _kinds(groups, schema, policy)
  source = _source(groups, schema.names, kinds, policy)
  classes, names = _classes(schema, groups)
  return source._replace(
    fingerprint=fingerprint(paths), num_classes=classes, class_names=names
  )


def _kinds(groups: list[_Group], schema: Any, policy: Policy) -> list:
  """Returns the kind of each column; of lists, by those of one row group."""
  from pyarrow import types

  kinds = [arrow.kind_of(field.type) for field in schema]
  listed = [
    i
    for i, field in enumerate(schema)
    if types.is_list(field.type) or types.is_large_list(field.type)
  ]
  sound = [group for group in groups if not group.error and group.rows]
  if listed and sound:
    with contextlib.suppress(ValueError):  # It is reported when it is read.
      table = _table(sound[0], policy)
      for i in listed:
        kinds[i] = arrow.kind_in(table.column(i))
  return kinds


def _classes(schema: Any, groups: list[_Group]) -> tuple:
  """Returns the number of classes and their names, each None if unknown."""
  from pyarrow import types

  place = schema.get_field_index(_LABEL)
  if place < 0 or not types.is_integer(schema.field(place).type):
    return None, None
  names = arrow.class_names(schema.metadata, _LABEL)
  if names:
    return len(names), names
  largest = [group.largest for group in groups if not group.error]
  if None in largest or not 0 <= max(largest) < _MOST_CLASSES:
    return None, None
  return max(largest) + 1, None


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
    found = {
      n: arrow.column_of(values, kind)
      for n, values, kind in zip(names, cells, kinds, strict=True)
    }
    for leaf in (
      found[n] for n, k in zip(names, kinds, strict=True) if k == b""
    ):
      for index, value in zip(indices, leaf, strict=True):
        image_size.check_image(value, name(int(index)), policy)
    return found

  return Source(int(ends[-1]), read, name)


def _table(group: _Group, policy: Policy) -> Any:
  """Reads a row group, with dictionary-encoded texts."""
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
