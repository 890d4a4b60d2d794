"""Columns of Arrow tables as fields of records."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from input_pipeline.reading.columns import column, integers, strings
from input_pipeline.reading.formats import parquet as files


class Lists(NamedTuple):
  """A column of lists of numbers whose lengths differ, which is ragged.

  tail: the sizes of all axes but the first.
  """

  dtype: np.dtype
  tail: tuple[int, ...]


def kind_of(kind: Any) -> Any:
  """Returns a column's NumPy type or empty value; None for other values."""
  from pyarrow import types

  if types.is_struct(kind) and {f.name for f in kind} == {"bytes", "path"}:
    kind = kind.field("bytes").type
  if types.is_dictionary(kind):
    kind = kind.value_type
  if types.is_integer(kind) or types.is_floating(kind):
    return np.dtype(kind.to_pandas_dtype())
  if types.is_boolean(kind):
    return np.dtype(bool)
  if types.is_string(kind) or types.is_large_string(kind):
    return ""
  if types.is_binary(kind) or types.is_large_binary(kind):
    return b""
  return None


def kind_in(values: Any) -> Any:
  """Returns `kind_of` a column, or Lists if it has lists of several lengths.

  Args:
    values: a pyarrow ChunkedArray.
  """
  import pyarrow
  from pyarrow import compute, types

  def is_list(kind):
    return types.is_list(kind) or types.is_large_list(kind)

  inner, tail = values, ()
  if not is_list(inner.type):
    return kind_of(values.type)
  sizes = compute.min_max(compute.list_value_length(inner)).as_py()
  inner = pyarrow.chunked_array(compute.list_flatten(inner))
  if sizes["min"] == sizes["max"]:
    return None
  while is_list(inner.type):
    within = compute.min_max(compute.list_value_length(inner)).as_py()
    if within["min"] != within["max"] or within["min"] is None:
      return None
    tail = (*tail, within["min"])
    inner = pyarrow.chunked_array(compute.list_flatten(inner))
  kind = kind_of(inner.type)
  return Lists(kind, tail) if isinstance(kind, np.dtype) else None


def column_of(values: list, kind: Any) -> np.ndarray:
  """Returns the cells of a column as a field.

  Args:
    values: Python's values of the cells; None where one is missing.
    kind: the result of `kind_of` or `kind_in`.
  """
  if isinstance(kind, Lists):
    return strings(
      [np.array(v or [], kind.dtype).reshape(-1, *kind.tail) for v in values]
    )
  if isinstance(kind, np.dtype):
    if kind.kind != "f":
      return integers(values, kind)
    return np.array([np.nan if v is None else v for v in values], kind)
  if kind == b"":
    values = [v["bytes"] if isinstance(v, dict) else v for v in values]
  if kind is not None:
    return strings([kind if value is None else value for value in values])
  return column([files.plain(value) for value in values])


def class_names(
  metadata: Mapping[bytes, bytes] | None, field: str
) -> tuple[str, ...] | None:
  """Returns the classes that the metadata of `datasets` name, if they do."""
  try:
    features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
    names = features[field]["names"]
  except (KeyError, TypeError, ValueError, RecursionError):
    return None
  if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
    return None
  return tuple(names) or None
