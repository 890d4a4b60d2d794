"""jsonl:GLOB: a record per line, with random access."""

import contextlib
import functools

import numpy as np

from input_pipeline.bad_records import Policy, spread
from input_pipeline.reading import bounded, line_records, text_options
from input_pipeline.reading.columns import column, ragged, strings
from input_pipeline.reading.formats.jsonl import parse
from input_pipeline.reading.inflate import is_compressed
from input_pipeline.reading.line_records import Spans
from input_pipeline.reading.paths import find_files, fingerprint
from input_pipeline.reading.text_options import Options
from input_pipeline.sources import Source

# The number of records that are read to find the fields.
_TYPED = 16
_NEWLINE = ord("\n")
_SPACE = np.isin(np.arange(256), np.frombuffer(b" \t\n\r\x0b\x0c", np.uint8))


def lines(path: str, policy: Policy) -> Spans:
  """Locates the non-blank lines of a file, each a record.

  Raises:
    ValueError: the file has none or cannot be read; under "skip" it is one bad
      record.
  """
  try:
    found = Spans(path, *_find(path))
    if not len(found.starts):
      raise ValueError(f"{path}: holds no record")
    if not is_compressed(path):
      return found
    return line_records.hold(found, found.sizes > policy.max_record_bytes)
  except ValueError as error:
    if not policy.skip:
      raise
    return line_records.broken(path, error)


def _find(path: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns (starts, sizes, numbers) of the non-blank lines."""
  parts = []
  begin = offset = number = 0  # of the current line, the chunk, the line
  tail = b""
  for chunk in bounded.chunks(path):
    data = np.frombuffer(tail + chunk, np.uint8)
    stops = offset + np.flatnonzero(data[len(tail) :] == _NEWLINE)
    if len(stops):
      parts.append(_full(begin, stops, number, data, offset - len(tail)))
      begin, number = int(stops[-1]) + 1, number + len(stops)
    offset += len(chunk)
    # A line of two bytes, which may be blank, can end in the next chunk.
    tail = (tail + chunk)[-2:]
  if begin < offset:
    data = np.frombuffer(tail, np.uint8)
    last = np.array([offset])
    parts.append(_full(begin, last, number, data, offset - len(tail)))
  if not parts:
    return (np.zeros(0, np.int64),) * 3
  return tuple(np.concatenate(columns) for columns in zip(*parts, strict=True))


def _full(begin: int, stops: np.ndarray, number: int, data, origin: int):
  """Returns which of the lines that end at `stops` are not blank.

  Args:
    begin: the start of the first line.
    stops: int64, the end of each line.
    number: the number of lines before these.
    data: uint8; all bytes of each line that is shorter than 3 bytes.
    origin: the position in the file of data's first byte.
  """
  starts = np.concatenate([[begin], stops[:-1] + 1])
  sizes = stops - starts
  short = np.flatnonzero(sizes <= 2)
  short = short[sizes[short] > 0]
  ends = _SPACE[data[starts[short] - origin]]
  ends &= _SPACE[data[stops[short] - 1 - origin]]
  full = sizes > 0
  full[short[ends]] = False
  kept = np.flatnonzero(full)
  return starts[kept], sizes[kept], number + kept + 1


def jsonl(rest: str, policy: Policy = Policy()) -> dict[str, Source]:
  """jsonl:GLOB: a record per line; the keys of the records are the fields.

  The fields are those of the first record and of a few others. Numbers and
  lists of numbers become arrays, whose first axis may differ between records;
  other values are unchanged. The value of a field that a record lacks is None:
  the record is bad if the run uses the field. A .gz or .zst file is held in
  memory. A file that cannot be read or fully decompressed, or that holds no
  record, is an error; under "skip" it is one bad record.

  jsonl:GLOB?encoding=NAME: files in another encoding than UTF-8.
  """
  pattern, options = text_options.split(rest, "jsonl")
  text_options.check_lines(options, f"jsonl:{rest}")
  paths = find_files(pattern, f"jsonl:{pattern}")
  return {"all": of_files(paths, policy, options=options)}


def of_files(
  paths: list[str],
  policy: Policy,
  needed: tuple[str, ...] = (),
  options: Options = Options(),
) -> Source:
  """Returns the records of some files, concatenated.

  Args:
    paths: of the files.
    policy: how bad records are handled.
    needed: the fields that each record must have; any other missing field is
      None.
    options: the encoding.
  """
  files = [lines(path, policy) for path in paths]
  decode = functools.partial(parse, encoding=options.encoding)
  records = line_records.joined(files, policy, decode)
  some = [line_records.first(records, policy)]
  for place in spread(records.length, _TYPED):
    with contextlib.suppress(ValueError):  # It is reported when it is used.
      some += records.read(np.array([place]))
  fields = dict.fromkeys(field for record in some for field in record)
  lists = {}
  for field in fields:
    kind = ragged([each[field] for each in some if each.get(field) is not None])
    if kind is not None:
      lists[field] = kind

  def read(indices: np.ndarray) -> dict[str, np.ndarray]:
    found = records.read(indices)
    for i, record in zip(indices, found, strict=True):
      missing = [f for f in needed if f not in record]
      if missing:
        raise ValueError(f"{records.name(i)}: no field {missing[0]!r}")
    columns = {f: [each.get(f) for each in found] for f in fields}
    for field, (dtype, tail) in lists.items():
      for n, (i, value) in enumerate(zip(indices, columns[field], strict=True)):
        if value is not None:
          where = f"{records.name(int(i))}: the field {field!r}"
          columns[field][n] = _array(value, dtype, tail, where)
    return {
      f: strings(values) if f in lists else column(values)
      for f, values in columns.items()
    }

  source = Source(records.length, read, records.name)
  return source._replace(fingerprint=fingerprint(paths, options))


def _array(value, dtype, tail, where: str) -> np.ndarray:
  """Returns a list of numbers as an array [n, ...], or raises ValueError."""
  try:
    found = np.array(value, object)
    if set(map(type, found.reshape(-1))) <= {int, float, bool}:
      return np.array(value, dtype).reshape(-1, *tail)
  except (ValueError, OverflowError):
    pass
  shape = ", ".join(["n", *map(str, tail)])
  raise ValueError(f"{where} is no list of numbers [{shape}]")
