"""The values of the columns of a sample of mds:DIR."""

import json
import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from input_pipeline.reading import pictures

# The code of the type of an array that its column does not fix.
_CODES = {8: "u1", 9: "i1", 16: "u2", 17: "i2", 18: "f2", 32: "u4", 33: "i4"}
_CODES |= {34: "f4", 64: "u8", 65: "i8", 66: "f8"}
_TYPES = {np.dtype(code).name: np.dtype(f"<{code}") for code in _CODES.values()}
_BYTES = ("bytes", "jpeg", "png")
_ARRAY = re.compile(r"ndarray(:(?P<dtype>\w+)(:(?P<shape>\d+(,\d+)*))?)?")
# Types that no ragged field can have, and one that holds their values.
_WIDER = {"uint32": np.int64}


class Column(NamedTuple):
  """A column.

  size: in bytes, or None if it differs between samples.
  decode: (bytes) -> value; ValueError if they are malformed.
  """

  name: str
  size: int | None
  decode: Callable[[bytes], Any]


def columns(names: list, encodings: list, index: str) -> list[Column]:
  """Returns the columns that an index lists, in their order.

  Raises:
    ValueError: an encoding is unknown, or is "pkl"; one line that names both.
  """
  if len(set(map(str, names))) != len(encodings):
    raise ValueError(f"{index}: {len(encodings)} encodings of {names}")
  return [
    _column(str(name), str(encoding), index)
    for name, encoding in zip(names, encodings, strict=True)
  ]


def _column(name: str, encoding: str, index: str) -> Column:
  if encoding in _TYPES or encoding == "int":
    dtype = _TYPES["int64" if encoding == "int" else encoding]
    return Column(name, dtype.itemsize, lambda b: np.frombuffer(b, dtype)[0])
  if encoding.partition(":")[0] in _BYTES:  # jpeg:QUALITY
    return Column(name, None, bytes)
  if encoding == "pil":
    return Column(name, None, pictures.png_of_raw)
  if encoding in ("str", "json"):
    return Column(name, None, _text if encoding == "str" else _json)
  found = _ARRAY.fullmatch(encoding)
  dtype = _TYPES.get(found["dtype"]) if found else None
  if found and (dtype or not found["dtype"]):
    shape = found["shape"] and tuple(map(int, found["shape"].split(",")))
    size = math.prod(shape) * dtype.itemsize if shape else None
    return Column(name, size, lambda data: _array(data, dtype, shape))
  why = ""
  if encoding.startswith("pkl"):
    why = "; reading a pickle runs its code: write the column as another type"
  raise ValueError(
    f"{index}: the column {name!r} is {encoding!r}, which is not read{why}"
  )


def decoded(data: bytes, found: list[Column], name: str) -> dict[str, Any]:
  """Returns the fields of a sample; ValueError names it and the column.

  The sizes of the columns of variable size, uint32, precede the values.
  """
  variable = sum(column.size is None for column in found)
  if len(data) < 4 * variable:
    raise ValueError(f"{name}: damaged: {len(data)} bytes")
  sizes = iter(np.frombuffer(data, "<u4", variable).tolist())
  at, fields = 4 * variable, {}
  for column in found:
    size = next(sizes) if column.size is None else column.size
    value = data[at : at + size]
    at += size
    try:
      if len(value) != size:
        raise ValueError("cut short")
      fields[column.name] = column.decode(value)
    except ValueError as error:
      raise ValueError(f"{name}: the column {column.name!r}: {error}") from None
  if at != len(data):
    raise ValueError(f"{name}: damaged: {len(data) - at:,} bytes too many")
  return fields


def _text(data: bytes) -> str:
  try:
    return data.decode()
  except UnicodeDecodeError as error:
    raise ValueError(f"not UTF-8 at byte {error.start}") from None


def _json(data: bytes) -> Any:
  try:
    return json.loads(_text(data))
  except (ValueError, RecursionError):
    raise ValueError("not JSON") from None


def _array(
  data: bytes, dtype: np.dtype | None, shape: tuple[int, ...] | None
) -> np.ndarray:
  """Returns an array, whose type and shape precede it if they are not fixed.

  The type is a byte. Of the next byte, the lowest two bits are the logarithm of
  the bytes of each size, and the others are the number of axes.
  """
  at = 0
  if dtype is None:
    code = _CODES.get(data[0] if data else 0)
    if code is None:
      raise ValueError("an array of an unknown type")
    dtype, at = _TYPES[np.dtype(code).name], 1
  if shape is None:
    head = data[at] if len(data) > at else 0
    width, axes = 2 ** (head & 3), head >> 2
    stop = at + 1 + axes * width
    if not 0 < axes <= 32 or stop > len(data):
      raise ValueError("an array without a shape")
    sizes = np.frombuffer(data[at + 1 : stop], f"<u{width}")
    shape, at = tuple(sizes.tolist()), stop
  if math.prod(shape) * dtype.itemsize != len(data) - at:
    raise ValueError(f"{len(data) - at:,} bytes are not of shape {shape}")
  found = np.frombuffer(data, dtype, offset=at).reshape(shape)
  return found.astype(_WIDER.get(dtype.name, dtype), copy=False)
