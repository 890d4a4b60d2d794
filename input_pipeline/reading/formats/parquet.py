"""Parquet files as documents."""

import base64
import contextlib
import datetime
import decimal
import math
from collections.abc import Iterator
from typing import Any

from input_pipeline.bad_records import Policy, check_size, told
from input_pipeline.document import Bad, Document
from input_pipeline.reading import bounded, records, remote
from input_pipeline.reading.streams import bad

NEEDS = "pyarrow"
# Of rows that are held at once, and their bytes before they are decoded.
_ROWS = 1024
_BYTES = 2**25


def parquet_file(path: str, policy: Policy) -> Any:
  """A pyarrow ParquetFile.

  Strings stay in their dictionaries while they are decoded: one that a million
  rows share would else be there a million times.

  Raises:
    ValueError: it is none, or pyarrow is not installed; it names the file.
  """
  try:
    from pyarrow import parquet
  except ModuleNotFoundError:
    raise ValueError(
      f"{path}: a Parquet file needs pyarrow, which is not installed: "
      "pip install -e '.[clean]'"
    ) from None
  if remote.is_remote(path):
    raise ValueError(f"{path}: Parquet files are read from a folder alone")
  limits = dict(
    thrift_string_size_limit=2**27, thrift_container_size_limit=2**22
  )
  # A pipe or a device is refused before it is waited for.
  bounded.size_of(path)
  with readable(path):
    with parquet.ParquetFile(path, **limits) as file:
      leaves = [file.schema.column(i) for i in range(len(file.schema))]
    shared = [
      leaf.path
      for leaf in leaves
      if leaf.physical_type == "BYTE_ARRAY"
      and leaf.logical_type.type in ("STRING", "NONE")
    ]
    return parquet.ParquetFile(path, read_dictionary=shared, **limits)


@contextlib.contextmanager
def readable(name: str) -> Iterator[None]:
  """Inside, whatever goes wrong is a ValueError of one line that names it."""
  try:
    yield
  except Exception as error:  # pyarrow's are of a dozen kinds.
    if type(error) is ValueError:
      raise ValueError(told(name, str(error).removeprefix(": "))) from None
    said = (str(error).strip().splitlines() or [type(error).__name__])[0]
    raise ValueError(f"{name}: broken Parquet file: {said[:300]}") from None


def group_rows(file: Any, group: int, policy: Policy) -> int:
  """How many rows of a group are decoded at once.

  Raises:
    ValueError: its rows are too large on the average.
  """
  found = file.metadata.row_group(group)
  columns = range(found.num_columns)
  size = sum(found.column(i).total_uncompressed_size for i in columns)
  mean = max(size, 0) // max(found.num_rows, 1)
  check_size(mean, "", policy, "rows of ")
  return int(min(_ROWS, max(1, _BYTES // (mean + 1))))


def read(
  path: str, *, text_key: str, policy: Policy, name: str = ""
) -> Iterator[Document | Bad]:
  """A document of each row, "FILE:row" its id, counted from 0.

  An empty `text_key` leaves the text "". Times become ISO 8601, decimals
  strings, bytes that are no text base64, numbers that are not finite None.

  name: what the file is called; "" for its path.
  """
  name = name or path
  try:
    file = parquet_file(path, policy)
  except ValueError as error:
    yield bad(name, error, path)
    return
  with file:
    row = 0
    for group in range(file.num_row_groups):
      yield from _group(file, group, row, name, text_key, policy)
      row += max(file.metadata.row_group(group).num_rows, 0)


def _group(
  file: Any, group: int, row: int, name: str, text_key: str, policy: Policy
) -> Iterator[Document | Bad]:
  try:
    with readable(f"{name}:{row}"):
      rows = group_rows(file, group, policy)
      batches = file.iter_batches(rows, row_groups=[group], use_threads=False)
    while True:
      with readable(f"{name}:{row}"):
        batch = next(batches, None)
      if batch is None:
        return
      for i in range(batch.num_rows):
        yield _document(batch, i, f"{name}:{row}", text_key, policy)
        row += 1
  except ValueError as error:
    yield bad(f"{name}:{row}", error)


def _document(
  batch: Any, i: int, name: str, text_key: str, policy: Policy
) -> Document | Bad:
  try:
    with readable(name):
      one = batch.slice(i, 1)
      found = {
        field: plain(column[0].as_py())
        for field, column in zip(one.schema.names, one.columns, strict=True)
      }
      size = sum(len(v) for v in found.values() if isinstance(v, str))
      check_size(size, name, policy)
  except ValueError as error:
    return bad(name, error)
  return records.document(name, found, text_key, table=True)


def plain(value: Any) -> Any:
  """A cell as JSON can hold it."""
  if isinstance(value, float):
    return value if math.isfinite(value) else None
  if isinstance(value, bytes):
    try:
      return value.decode()
    except UnicodeDecodeError:
      return base64.b64encode(value).decode()
  if isinstance(value, (datetime.date, datetime.time)):
    return value.isoformat()
  if isinstance(value, datetime.timedelta):
    return value.total_seconds()
  if isinstance(value, decimal.Decimal):
    return str(value)
  if isinstance(value, dict):
    return {str(key): plain(each) for key, each in value.items()}
  if isinstance(value, (list, tuple)):
    return [plain(each) for each in value]
  if value is None or isinstance(value, (bool, int, str)):
    return value
  return str(value)
