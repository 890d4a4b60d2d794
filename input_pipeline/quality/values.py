"""Single values of a table: their types, their numbers, missing values."""

import datetime
import hashlib
import math
import numbers

import numpy as np

# Markers of missing values.
MISSING = frozenset(
  ["", "?", "NA", "N/A", "n/a", "na", "NaN", "nan", "NULL", "null", "None"]
  + ["none", "#N/A", "-", "--", "<NA>"]
)


def missing(value, text: bool = False) -> str:
  """Returns the marker of a missing value as written, or "" for a value.

  Args:
    value: of any type.
    text: whether the field holds free text, where "?" and "NA" are values.
  """
  if value is None:
    return "None"
  if isinstance(value, str):
    stripped = value.strip()
    if not stripped:
      return '""'
    return stripped if not text and stripped in MISSING else ""
  if isinstance(value, bytes):
    return "" if value else '""'
  if isinstance(value, (float, np.floating)) and math.isnan(value):
    return "NaN"
  return ""


def number(value) -> float:
  """Returns a value as a number, also if it is written as text; else NaN."""
  if isinstance(value, (bool, np.bool_)):
    return float(value)
  if isinstance(value, numbers.Real):
    try:
      return float(value)
    except OverflowError:
      return math.inf if value > 0 else -math.inf
  if isinstance(value, str) and len(value) < 64 and "_" not in value:
    try:
      return float(value)
    except ValueError:
      return math.nan
  return math.nan


def date(value) -> float:
  """Seconds since 1970 of an ISO date; a number as it is; else NaN.

  A year or a time stamp is taken as a number in its own unit, since dates are
  only ordered.
  """
  found = number(value)
  if not isinstance(value, str) or not math.isnan(found):
    return found
  try:
    moment = datetime.datetime.fromisoformat(value.strip().replace("/", "-"))
  except ValueError:
    return math.nan
  return moment.replace(tzinfo=moment.tzinfo or datetime.UTC).timestamp()


def type_name(value) -> str:
  """Returns the name of the type of a value, for the report."""
  if isinstance(value, (bool, np.bool_)):
    return "true/false"
  if isinstance(value, numbers.Integral):
    return "integer"
  if isinstance(value, numbers.Real):
    return "number"
  if isinstance(value, str):
    return "text" if math.isnan(number(value)) else "number in text"
  if isinstance(value, bytes):
    return "bytes"
  if isinstance(value, np.ndarray):
    return "array"
  return "list" if isinstance(value, (list, tuple)) else type(value).__name__


def encoded(value) -> bytes:
  """Returns bytes that are equal for values of equal type and value."""
  if isinstance(value, bytes):
    return b"b" + value
  if isinstance(value, str):
    return b"s" + value.encode("utf-8", "surrogatepass")
  if isinstance(value, np.ndarray) and value.dtype != object:
    head = f"a{value.dtype.str}{value.shape}".encode()
    return head + np.ascontiguousarray(value).tobytes()
  if isinstance(value, (bool, np.bool_)):
    return b"t" if value else b"f"
  if isinstance(value, numbers.Integral):
    return f"n{int(value):x}".encode()
  if isinstance(value, numbers.Real):
    # 1 and 1.0 are the same number, independent of the dtype.
    whole = math.isfinite(value) and value == int(value)
    return f"n{int(value):x}".encode() if whole else f"n{value!s}".encode()
  if isinstance(value, dict):
    value = sorted(value.items(), key=repr)
  return f"o{value!r}".encode()


def digest(parts: list[bytes]) -> int:
  """A 64-bit hash; among a million records a collision has probability 3e-8."""
  hasher = hashlib.blake2b(digest_size=8)
  for part in parts:
    # With the length, so that ("ab", "c") differs from ("a", "bc").
    hasher.update(len(part).to_bytes(8, "little"))
    hasher.update(part)
  return int.from_bytes(hasher.digest(), "little")
