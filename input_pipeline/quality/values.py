"""Single values of a table: their types, their numbers, missing values."""

import datetime
import hashlib
import math
import numbers

import numpy as np

from input_pipeline.similarity.text_hashes import normal_form

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


def exact_number(value) -> int | float | None:
  """The finite number that a value is or that its text spells, or None.

  Whole numbers are integers, whatever their type: 1 and 1.0 are the same.
  """
  if isinstance(value, bytes) and len(value) < 64:
    value = value.decode(errors="replace")
  if isinstance(value, (bool, np.bool_)):
    return None
  if isinstance(value, str) and len(value) < 64 and "_" not in value:
    try:
      return int(value)
    except ValueError:
      pass
  if isinstance(value, numbers.Integral):
    return int(value)
  found = number(value)
  if not math.isfinite(found):
    return None
  return int(found) if found == int(found) else found


def encoded(value, text: bool = False, loose: bool = False) -> bytes:
  """Bytes that are equal for equal values, whatever type they are stored as.

  A number in text is that number, and all markers of a missing value are equal,
  so that one odd cell, which makes a column text, does not change the others.

  Args:
    value: of any type.
    text: whether the field holds free text, see `missing`.
    loose: whether case and white space are ignored.
  """
  if isinstance(value, (list, tuple)):
    value = _array(value)
  if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
    # Pixels stay as they are; other numbers are the same in every type.
    array = value if value.dtype == np.uint8 else value.astype(np.float64)
    if value.dtype.kind in "iu" and (np.abs(array) > 2**53).any():
      array = value  # float64 would round them.
    return f"a{value.shape}".encode() + np.ascontiguousarray(array).tobytes()
  if not isinstance(value, np.ndarray) and missing(value, text):
    return b"m"
  found = exact_number(value)
  if found is not None:
    return (
      f"n{found:x}".encode()
      if isinstance(found, int)
      else f"n{found!r}".encode()
    )
  if isinstance(value, bytes):
    return b"s" + value
  if isinstance(value, (bool, np.bool_)):
    return b"strue" if value else b"sfalse"
  if isinstance(value, str):
    if not text and value.lower() in ("true", "false"):
      value = value.lower()
    value = normal_form(value, "case+whitespace") if loose else value
    return b"s" + value.encode("utf-8", "surrogatepass")
  if isinstance(value, dict):
    value = sorted(value.items(), key=repr)
  return f"o{value!r}".encode()


def _array(value: list | tuple):
  """A list of numbers as an array; other lists as they are."""
  try:
    found = np.array(value)
  except ValueError:  # of lists of different lengths
    return value
  return found if found.dtype.kind in "biuf" else value


def digest(parts: list[bytes]) -> int:
  """A 64-bit hash; among a million records a collision has probability 3e-8."""
  hasher = hashlib.blake2b(digest_size=8)
  for part in parts:
    # With the length, so that ("ab", "c") differs from ("a", "bc").
    hasher.update(len(part).to_bytes(8, "little"))
    hasher.update(part)
  return int.from_bytes(hasher.digest(), "little")
