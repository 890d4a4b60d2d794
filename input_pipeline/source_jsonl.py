"""jsonl:GLOB, a record per line, read at random."""

import json
from typing import NamedTuple

import numpy as np

from input_pipeline import bounded
from input_pipeline.bad_records import Policy, check_size, spread
from input_pipeline.source import Source
from input_pipeline.source_text import find_files, fingerprint, strings

_NEWLINE = ord("\n")
_SPACE = np.isin(np.arange(256), np.frombuffer(b" \t\n\r\x0b\x0c", np.uint8))


class _Lines(NamedTuple):
  """Where the lines of one file are that are not blank.

  starts: int64, in the file, or in `held` where there is one.
  sizes: int64, their bytes.
  numbers: int64, from 1 on.
  held: what a compressed file inflates to: it has no random access.
  broken: what is wrong with the whole file, which then counts as one line.
  """

  path: str
  starts: np.ndarray
  sizes: np.ndarray
  numbers: np.ndarray
  held: np.ndarray | None = None
  broken: str = ""

  def name(self, line: int) -> str:
    return self.path if self.broken else f"{self.path}:{self.numbers[line]}"

  def records(self, lines: np.ndarray, policy: Policy) -> list[dict]:
    if self.broken:
      raise ValueError(self.broken)
    for line in lines:
      check_size(int(self.sizes[line]), self.name(line), policy)
    return [
      _parse(self.name(line), text)
      for line, text in zip(lines, self._read(lines), strict=True)
    ]

  def _read(self, lines: np.ndarray) -> list[bytes]:
    spans = [(int(self.starts[i]), int(self.sizes[i])) for i in lines]
    if self.held is not None:
      return [self.held[start : start + n].tobytes() for start, n in spans]
    found = []
    try:
      with open(self.path, "rb", buffering=0) as file:
        for start, size in spans:
          file.seek(start)
          found.append(file.read(size))
    except OSError as error:
      raise bounded.failure(self.path, error) from None
    return found


def _lines(path: str, policy: Policy) -> _Lines:
  """The lines of a file; ValueError, or a broken one, where it has none."""
  try:
    lines = _Lines(path, *_find(path))
    if not len(lines.starts):
      raise ValueError(f"{path}: holds no record")
    return _hold(lines, policy) if path.endswith(".gz") else lines
  except ValueError as error:
    if not policy.skip:
      raise
    none = np.zeros(1, np.int64)
    return _Lines(path, none, none, none, broken=str(error))


def _find(path: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """(starts, sizes, numbers) of the lines that are not blank."""
  parts = []
  begin = offset = number = 0  # of the line under way, the chunk, the line
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
  """What is not blank of the lines that end at `stops`.

  Args:
    begin: of the first line.
    stops: int64, the end of each line.
    number: how many lines come before.
    data: uint8; of each line that is shorter than 3 all bytes.
    origin: the place in the file of data's first byte.
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


def _hold(lines: _Lines, policy: Policy) -> _Lines:
  """The lines with their bytes in memory, but for those that are too long."""
  long = lines.sizes > policy.max_record_bytes
  holes = [
    (int(start), int(start + size))
    for start, size in zip(lines.starts[long], lines.sizes[long], strict=True)
  ]
  gone = np.cumsum(np.where(long, lines.sizes, 0))
  held = np.empty(int(lines.starts[-1] + lines.sizes[-1] - gone[-1]), np.uint8)
  offset = filled = 0
  for chunk in bounded.chunks(lines.path):
    data = np.frombuffer(chunk, np.uint8)
    if holes:
      kept = np.ones(len(data), bool)
      for start, stop in holes:
        kept[max(start - offset, 0) : max(stop - offset, 0)] = False
      data = data[kept]
    offset += len(chunk)
    data = data[: len(held) - filled]
    held[filled : filled + len(data)] = data
    filled += len(data)
  if filled < len(held):
    raise ValueError(f"{lines.path}: was changed while it was read")
  # A hole lies before the lines after it, but not before its own.
  before = gone - np.where(long, lines.sizes, 0)
  return lines._replace(starts=lines.starts - before, held=held)


def _parse(name: str, line: bytes) -> dict:
  try:
    record = json.loads(line)
  except RecursionError:
    raise ValueError(f"{name}: nested too deeply") from None
  except ValueError as error:
    raise ValueError(f"{name}: not JSON: {error}") from None
  if not isinstance(record, dict):
    raise ValueError(f"{name}: not a JSON object")
  return record


def jsonl(pattern: str, policy: Policy = Policy()) -> dict[str, Source]:
  """jsonl:GLOB, a record per line; the first record's keys are the fields.

  Numbers and lists of numbers become arrays, other values stay as they are. A
  .gz file is held in memory. A file that cannot be read, or inflated to its
  end, or that holds no record, is an error; under "skip" it is one bad record.
  """
  return {"all": of_files(find_files(pattern, f"jsonl:{pattern}"), policy)}


def of_files(
  paths: list[str], policy: Policy, needed: tuple[str, ...] | None = None
) -> Source:
  """The records of some files, one after another.

  Args:
    paths: of the files.
    policy: of bad records.
    needed: what each record must have, where that is not all of the first
      one's fields; what else one lacks is None.
  """
  files = [_lines(path, policy) for path in paths]
  ends = np.cumsum([len(file.starts) for file in files])

  def locate(index: int) -> tuple[_Lines, int]:
    f = int(np.searchsorted(ends, index, side="right"))
    return files[f], int(index - (ends[f] - len(files[f].starts)))

  def name(index: int) -> str:
    file, line = locate(index)
    return file.name(line)

  def records(indices: np.ndarray) -> list[dict]:
    found = [{}] * len(indices)
    at = np.searchsorted(ends, indices, side="right")
    for f in np.unique(at):
      rows = np.flatnonzero(at == f)
      lines = indices[rows] - (ends[f] - len(files[f].starts))
      for row, record in zip(
        rows, files[f].records(lines, policy), strict=True
      ):
        found[row] = record
    return found

  fields = _fields(records, int(ends[-1]), policy)

  def read(indices: np.ndarray) -> dict[str, np.ndarray]:
    found = records(np.asarray(indices, np.int64))
    for i, record in zip(indices, found, strict=True):
      missing = [f for f in needed or fields if f not in record]
      if missing:
        raise ValueError(f"{name(i)}: no field {missing[0]!r}")
    return {f: _column([each.get(f) for each in found]) for f in fields}

  return Source(int(ends[-1]), read, name, fingerprint=fingerprint(paths))


def _fields(records, length: int, policy: Policy) -> list[str]:
  """The keys of the first record; under "skip", of a readable one."""
  failed = None
  for place in spread(length) if policy.skip else (0,):
    try:
      return list(records(np.array([place]))[0])
    except ValueError as error:
      failed = failed or error
  raise failed


def _column(values: list) -> np.ndarray:
  """An array of numbers where the values are, else of objects."""
  if all(isinstance(value, (int, float, list)) for value in values):
    try:
      # As objects first: strings would all be padded to the longest.
      leaves = np.array(values, object)
    except ValueError:
      return strings(values)
    if set(map(type, leaves.reshape(-1))) <= {int, float, bool}:
      array = np.array(values)
      if array.dtype.kind in "biuf":
        return array
  return strings(values)
