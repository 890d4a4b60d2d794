"""Reads Parquet files as documents."""

import base64
import contextlib
import datetime
import decimal
import math
from collections.abc import Iterator
from typing import Any

from input_pipeline.bad_records import Policy, check_size, error_line
from input_pipeline.document import Bad, Document
from input_pipeline.reading import bounded, records, remote
from input_pipeline.reading.streams import bad

NEEDS = "pyarrow"
# Limits of the rows that are decoded at once.
_ROWS = 1024
_BYTES = 2**25


def parquet_file(path: str, policy: Policy) -> Any:
  """Opens a file with pyarrow.

  Strings stay dictionary-encoded: a string that a million rows share would
  otherwise be decoded a million times.

  Raises:
    ValueError: it is not a Parquet file, or pyarrow is not installed.
  """
  try:
    from pyarrow import parquet
  except ModuleNotFoundError:
    raise ValueError(
      f"{path}: a Parquet file needs pyarrow, which is not installed: "
      "pip install -e '.[clean]'"
    ) from None
  if remote.is_remote(path):
    raise ValueError(
      f"{path}: Parquet files are read from local folders only; copy it there"
    )
  limits = dict(
    thrift_string_size_limit=2**27, thrift_container_size_limit=2**22
  )
  # Refuses a pipe or a device, which would block.
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
def readable(name: str, what: str = "Parquet file") -> Iterator[None]:
  """Inside, every error becomes a ValueError of one line with the name.

  It is a LostError if pyarrow raised it.
  """
  try:
    yield
  except Exception as error:  # pyarrow raises many kinds
    if type(error) is ValueError:
      raise ValueError(
        error_line(name, str(error).removeprefix(": "))
      ) from None
    said = (str(error).strip().splitlines() or [type(error).__name__])[0]
    line = f"{name}: broken {what}: {said[:300]}"
    raise bounded.LostError(line) from None


def group_rows(file: Any, group: int, policy: Policy) -> int:
  """The number of rows of a group to decode at once.

  Raises:
    ValueError: the rows are too large on average.
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
  """Yields one document per row, with the id "FILE:row", counted from 0.

  If `text_key` is empty, so is the text. Times become ISO 8601, decimals
  strings, bytes that are not UTF-8 base64, and non-finite numbers None.

  name: the name of the file in ids and errors; "" for its path.
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
    return bad(name, str(error))  # The other rows are not lost.
  return records.document(name, found, text_key, table=True)


def plain(value: Any) -> Any:
  """The value of a cell in types that JSON has."""
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
