"""The features of a tf.train.Example, from its bytes.

They are parsed here, after the encoding of Protocol Buffers, so that reading
needs no TensorFlow and a damaged message is a ValueError.
"""

from collections.abc import Iterator

import numpy as np

# Wire types.
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
# The fields of a Feature.
_OF_BYTES, _OF_FLOATS, _OF_INTEGERS = 1, 2, 3

Value = list[bytes] | np.ndarray


def features(content: bytes) -> dict[str, Value]:
  """Returns {name: bytes, or an array float32 or int64 [n]}.

  A feature without a list is not in the result.

  Raises:
    ValueError: the bytes are not such a message.
  """
  found = {}
  for group in _messages(content, 1):
    for entry in _messages(group, 1):
      name = b"".join(_messages(entry, 1)[-1:])
      value = None
      for feature in _messages(entry, 2):
        value = _value(feature)
      if value is not None:
        try:
          found[name.decode()] = value
        except UnicodeDecodeError:
          raise _damaged() from None
  return found


def _damaged() -> ValueError:
  return ValueError("not a tf.train.Example")


def _value(feature: bytes) -> Value | None:
  """Returns the list of a Feature."""
  value: Value | None = None
  for kind, wire, content in _fields(feature):
    if kind not in (_OF_BYTES, _OF_FLOATS, _OF_INTEGERS) or wire != _BYTES:
      continue
    if kind == _OF_BYTES:
      value = _messages(content, 1)
    else:
      value = _numbers(content, kind)
  return value


def _numbers(content: bytes, kind: int) -> np.ndarray:
  """Returns the numbers of a list, which may be packed."""
  single = _FIXED32 if kind == _OF_FLOATS else _VARINT
  parts = []
  for number, wire, value in _fields(content):
    if number != 1:
      continue
    if wire not in (_BYTES, single):
      raise _damaged()
    parts.append(value)
  joined = b"".join(parts)
  if kind == _OF_INTEGERS:
    return _varints(joined)
  if len(joined) % 4:
    raise _damaged()
  return np.frombuffer(joined, "<f4").astype(np.float32, copy=False)


def _varints(content: bytes) -> np.ndarray:
  """Returns integers of 7 bits per byte, lowest first, as int64."""
  data = np.frombuffer(content, np.uint8)
  if not len(data):
    return np.zeros(0, np.int64)
  ends = np.flatnonzero(data < 0x80)
  if not len(ends) or ends[-1] != len(data) - 1:
    raise _damaged()
  starts = np.concatenate([[0], ends[:-1] + 1])
  lengths = ends - starts + 1
  if lengths.max() > 10:
    raise _damaged()
  places = np.arange(len(data)) - np.repeat(starts, lengths)
  bits = (data & 0x7F).astype(np.uint64) << (7 * places).astype(np.uint64)
  return np.bitwise_or.reduceat(bits, starts).view(np.int64)


def _messages(content: bytes, number: int) -> list[bytes]:
  """Returns the fields of this number that are bytes or messages."""
  return [
    value
    for each, wire, value in _fields(content)
    if each == number and wire == _BYTES
  ]


def _fields(content: bytes) -> Iterator[tuple[int, int, bytes]]:
  """Yields (number, wire type, bytes of the value) of a message."""
  at = 0
  while at < len(content):
    tag, at = _varint(content, at)
    wire = tag & 7
    if wire == _VARINT:
      _, stop = _varint(content, at)
    elif wire == _BYTES:
      size, at = _varint(content, at)
      stop = at + size
    elif wire in (_FIXED64, _FIXED32):
      stop = at + (8 if wire == _FIXED64 else 4)
    else:
      raise _damaged()
    if stop > len(content):
      raise _damaged()
    yield tag >> 3, wire, content[at:stop]
    at = stop


def _varint(content: bytes, at: int) -> tuple[int, int]:
  """Returns (value, the place after it)."""
  value = 0
  for i, byte in enumerate(content[at : at + 10]):
    value |= (byte & 0x7F) << 7 * i
    if byte < 0x80:
      return value, at + i + 1
  raise _damaged()
