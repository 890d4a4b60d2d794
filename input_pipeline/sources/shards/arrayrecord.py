"""arrayrecord:GLOB: files of array_record that hold tf.train.Example."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from input_pipeline.bad_records import Policy, check_size
from input_pipeline.reading import bounded
from input_pipeline.reading.paths import find_files, fingerprint
from input_pipeline.sources import Source
from input_pipeline.sources.parts import samples, tf_example

# Files that are kept open.
_OPEN = 16
# Else a file's reader prefetches records beyond the one that is read.
_OPTIONS = "readahead_buffer_size:0"


def arrayrecord(pattern: str, policy: Policy = Policy()) -> dict[str, Source]:
  """arrayrecord:GLOB: a record per tf.train.Example; its features are fields.

  A feature that has one value in each of some records is a number or bytes;
  other lists of numbers are arrays, and ragged fields if their lengths differ.
  Integers are int64, floats float32. No batch can hold a list of several bytes:
  a note names such features. tfds:NAME reads what TFDS has prepared, with the
  shapes and the classes that are known there.

  A file that is damaged as a whole is an error; under "skip" it is one bad
  record.

  Raises:
    ValueError: array_record is not installed, a file is damaged, or a record is
      not a tf.train.Example; one line that names it.
  """
  uri = f"arrayrecord:{pattern}"
  paths = find_files(pattern, uri)
  reader = functools.lru_cache(_OPEN)(functools.partial(_reader, _module(uri)))
  counts = [_count(reader, path, policy) for path in paths]
  ends = np.cumsum(counts)
  if not ends[-1]:
    raise ValueError(f"{uri} holds no record")

  def place(index: int) -> tuple[str, int]:
    file = int(np.searchsorted(ends, index, side="right"))
    return paths[file], int(index - ends[file] + counts[file])

  def name(index: int) -> str:
    path, record = place(index)
    return f"{path}:{record}"

  def features(index: int) -> dict[str, tf_example.Value]:
    path, record = place(index)
    opened = reader(path)
    try:
      content = opened.read([record])[0]
    except (RuntimeError, ValueError, IndexError) as error:
      raise ValueError(f"{name(index)}: {_first_line(error)}") from None
    check_size(len(content), name(index), policy)
    try:
      return tf_example.features(content)
    except ValueError as error:
      raise ValueError(f"{name(index)}: {error}") from None

  some = samples.some_of(int(ends[-1]), features)
  lists = _lists(some)
  lost = [field for field, dtype in lists.items() if dtype is None]

  def one(index: int) -> dict[str, Any]:
    found: dict[str, Any] = {
      # A list without values is not always stored.
      field: np.zeros(0, dtype)
      for field, dtype in lists.items()
      if dtype is not None
    }
    for field, value in features(index).items():
      if field in lists:
        found |= {} if field in lost else {field: value}
      elif len(value) == 1:
        found[field] = value[0]
      elif len(value):
        raise ValueError(f"{name(index)}: {field!r} has {len(value)} values")
    return found

  source = samples.source_of(int(ends[-1]), one, name, policy)
  note = f"{uri}: no batch can hold {', '.join(lost)}" if lost else ""
  return {"all": source._replace(fingerprint=fingerprint(paths), note=note)}


def _lists(some: list[dict[str, tf_example.Value]]) -> dict[str, Any]:
  """Returns {feature with more or fewer values than one: type}.

  The type is None for bytes.
  """
  found = {}
  for features in some:
    for field, value in features.items():
      if len(value) > 1 or (len(value) == 0 and field not in found):
        found[field] = getattr(value, "dtype", None)
  return found


def _module(uri: str) -> Any:
  try:
    from array_record.python import array_record_module
  except ImportError:
    raise ValueError(
      f"{uri}: needs array_record, which is not installed: "
      "pip install -e '.[data]'"
    ) from None
  return array_record_module


def _reader(module: Any, path: str) -> Any:
  bounded.size_of(path)  # refuses a pipe or a device
  try:
    found = module.ArrayRecordReader(path, _OPTIONS)
  except (RuntimeError, ValueError) as error:
    raise ValueError(f"{path}: {_first_line(error)}") from None
  if not found.ok():
    raise ValueError(f"{path}: damaged, or not a file of array_record")
  return found


def _count(reader: Callable[[str], Any], path: str, policy: Policy) -> int:
  """Returns the number of records of a file; 1 if it is to be skipped."""
  try:
    return reader(path).num_records()
  except ValueError:
    if not policy.skip:
      raise
    return 1


def _first_line(error: Exception) -> str:
  return (str(error).strip().splitlines() or [type(error).__name__])[0]
