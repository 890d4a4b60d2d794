"""Records must have the fields, shapes and types of the first one."""

from collections.abc import Mapping
from typing import Any

import numpy as np

# The types that numbers have in a batch, where they differ from the data's.
NARROW = {"int64": np.int32, "uint64": np.int32, "float64": np.float32}

Rows = dict[str, np.ndarray]


def alike(
  examples: Any,
  sample: Rows,
  narrow: bool = False,
  uniform: Mapping[str, str] = {},
  ragged: Mapping[str, int] = {},
) -> Any:
  """Returns the examples, checked against the fields and types of a sample.

  Args:
    examples: a NamedTuple with `read` and `name`.
    sample: one record; only its fields are kept.
    narrow: whether the integers must be in the range of the types of a batch.
    uniform: {field that must have the value of the sample's: what the error
      recommends}.
    ragged: {field: how many of its first axes differ between records}.

  Returns:
    The same, except that `read` raises ValueError for a record that lacks a
    field, has another shape or type, or holds a number that is not finite.
  """

  def read(indices: np.ndarray) -> Rows:
    indices = np.asarray(indices, np.int64)
    if not len(indices):
      return {
        k: np.zeros((0, *v.shape[1:]), v.dtype) for k, v in sample.items()
      }
    rows = examples.read(indices)
    try:
      found = {
        k: _like(k, rows, like, ragged.get(k, 1)) for k, like in sample.items()
      }
      for field, advice in uniform.items():
        _check_uniform(field, found[field], sample[field], advice)
      if narrow:
        for field, leaf in found.items():
          check_range(field, leaf)
      return found
    except ValueError as error:
      if len(indices) > 1:
        for i in range(len(indices)):
          read(indices[i : i + 1])
      name = examples.name(int(indices[0]))
      raise ValueError(f"{name}: {error}") from None

  return examples._replace(read=read)


def _like(field: str, rows: Rows, like: np.ndarray, axes: int) -> np.ndarray:
  if field not in rows:
    raise ValueError(f"no field {field!r}")
  leaf = rows[field]
  if lacks(leaf):
    raise ValueError(f"no field {field!r} (missing, null or empty)")
  if like.dtype == object:
    kind = type(like[0])
    if not all(isinstance(value, kind) for value in leaf):
      raise ValueError(f"the field {field!r} is not {kind.__name__}")
    if kind is np.ndarray:
      return _like_ragged(field, leaf, like[0], axes)
    return leaf
  if leaf.dtype == object or leaf.shape[1:] != like.shape[1:]:
    raise ValueError(
      f"the field {field!r} is not of the first record's shape "
      f"{like.shape[1:]} and type {like.dtype}"
    )
  if not np.can_cast(leaf.dtype, like.dtype, "safe"):
    raise ValueError(f"the field {field!r} is {leaf.dtype}, not {like.dtype}")
  if leaf.dtype.kind == "f":
    with np.errstate(over="ignore"):
      finite = np.isfinite(leaf.astype(np.float32, copy=False)).all()
    if not finite:
      raise ValueError(f"the field {field!r} is not finite in float32")
  return leaf.astype(like.dtype, copy=False)


def _check_uniform(
  field: str, leaf: np.ndarray, like: np.ndarray, advice: str
) -> None:
  for value in leaf:
    if value != like[0]:
      raise ValueError(
        f"the field {field!r} is {value}, and {like[0]} in the first record;"
        f" {advice}"
      )


def _like_ragged(
  field: str, leaf: np.ndarray, like: np.ndarray, axes: int
) -> np.ndarray:
  """Returns arrays, checked to have the type of `like`, but for some axes."""
  for value in leaf:
    wanted, found = like.shape[axes:], value.shape[axes:]
    if value.ndim != like.ndim or found != wanted or value.dtype != like.dtype:
      raise ValueError(
        f"the field {field!r} is {value.dtype} {list(value.shape)}, and"
        f" {like.dtype} {['n'] * axes + [*wanted]} in the first record".replace(
          "'", ""
        )
      )
    if value.dtype.kind == "f" and not np.isfinite(value).all():
      raise ValueError(f"the field {field!r} is not finite")
  return leaf


def numeric(rows: Rows) -> Rows:
  """Returns the numeric fields, cast to the types that a batch has."""
  with np.errstate(over="ignore"):  # The images of the record are not decoded.
    return {
      name: leaf.astype(NARROW.get(leaf.dtype.name, leaf.dtype), copy=False)
      for name, leaf in rows.items()
      if leaf.dtype.kind in "biuf"
    }


def check_range(field: str, leaf: np.ndarray) -> None:
  """Raises ValueError for an integer that the type in a batch cannot hold."""
  kept = NARROW.get(leaf.dtype.name)
  if leaf.dtype.kind not in "iu" or kept is None or not leaf.size:
    return
  limits = np.iinfo(kept)
  for value in (leaf.min(), leaf.max()):
    if not limits.min <= int(value) <= limits.max:
      raise ValueError(
        f"the field {field!r} holds {int(value)}, which {kept.__name__}, the"
        " type of integers in a batch, cannot hold; the op keep(…) leaves"
        " fields out"
      )


def lacks(leaf: np.ndarray) -> bool:
  """Returns whether a value of a field is missing."""
  return leaf.dtype == object and any(value is None for value in leaf)
