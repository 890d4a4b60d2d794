"""Rewrites a string of ops for pictures of which only the pixels are known."""

from collections.abc import Collection

import numpy as np

from input_pipeline import ops
from input_pipeline.tensorflow_cpu import import_tensorflow

_DECODE, _KEEP, _PLACE = "decode", "keep", "place"


def without_fields(string: str, absent: Collection[str]) -> str:
  """Returns the string without ops on some fields, and the masks of these.

  `keep` no longer names them.
  """
  absent = {*absent, *(f"{name}_mask" for name in absent)}
  found = []
  for name, args, kwargs in _parsed(string):
    if name == _KEEP:
      args = tuple(key for key in args if key not in absent)
      if args:
        found.append((name, args, kwargs))
    elif ops.field_of(name, args, kwargs) not in absent:
      found.append((name, args, kwargs))
  return ops.spelled(found)


def with_place(string: str) -> str:
  """Returns the string with `track_place` first, and kept by `keep`."""
  found = [("track_place", (), {})]
  for name, args, kwargs in _parsed(string):
    if name == "track_place":
      continue
    if name == _KEEP and _PLACE not in args:
      args = (*args, _PLACE)
    found.append((name, args, kwargs))
  return ops.spelled(found)


def in_place(string: str) -> str:
  """Returns the string without its ops that move pixels."""
  return ops.spelled(call for call in _parsed(string) if not ops.moves(call[0]))


def fitted(
  string: str, field: str, shape: tuple[int, int, int], dtype: np.dtype
) -> tuple[str, str]:
  """Returns the string with what files of any size need, and a note on it.

  Without an op `decode`, one is put first. If pictures of two sizes leave the
  ops with two sizes, they are resized after it. If they leave them as uint8 and
  the model reads floats, `scale(-1, 1)` is put last. The note is "" unless one
  of the last two was done.

  Args:
    string: the ops.
    field: of the picture.
    shape: (height, width, channels) that the model was trained on; zeros for
      height and width if they may be any.
    dtype: of the pictures that the model reads.
  """
  found, notes = _parsed(string), []
  height, width, channels = shape
  inkey = {} if field == "image" else {"inkey": field}
  decodes = [
    i
    for i, (name, args, kwargs) in enumerate(found)
    if name == _DECODE and ops.field_of(name, args, kwargs) == field
  ]
  if not decodes:
    found.insert(0, (_DECODE, (channels,), inkey))
  after = decodes[0] + 1 if decodes else 1
  made = [_result(found, field, grown, shape) for grown in (1, 2)]
  if any(each is None for each in made):
    return ops.spelled(found), ""
  if height and made[0].shape != made[1].shape:
    found.insert(after, ("resize", ((height, width),), inkey))
    notes.append(f"resized to {width} x {height} pixels")
  if made[0].dtype == np.uint8 and np.dtype(dtype).kind == "f":
    found.append(("scale", (-1, 1), inkey))
    notes.append("scaled to the range from -1 to 1")
  done = " and ".join(notes)
  return ops.spelled(found), done and f"pictures are {done}; --ops sets other"


def _parsed(string: str) -> list[tuple[str, tuple, dict]]:
  return ops.parse(string) if string.strip() else []


def _result(calls, field: str, grown: int, shape) -> np.ndarray | None:
  """What the ops make of a grey picture of some size; None if they fail."""
  height, width, channels = shape
  size = (grown * max(height, 64) + 5, grown * max(width, 64) + 3 + grown)
  picture = np.full((*size, channels), 128, np.uint8)
  tf = import_tensorflow()
  try:
    made = ops.compile(ops.spelled(calls))(
      {field: tf.constant(picture)}, tf.constant([0, 0], tf.int64)
    )
    return made[field].numpy()
  except (ValueError, KeyError, tf.errors.OpError):
    return None  # the error is reported when the first picture is read
