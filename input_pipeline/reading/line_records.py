"""Random access to records that follow each other in files."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from input_pipeline.bad_records import Policy, check_size, spread
from input_pipeline.reading import bounded

Decode = Callable[[str, bytes], Any]


class Spans(NamedTuple):
  """The positions of the records of one file.

  starts: int64, offsets in the file, or in `held` if that is not None.
  sizes: int64, in bytes.
  numbers: int64, from 1 on; 0 means the whole file.
  held: the decompressed content of a compressed file, which has no random
    access.
  errors: {position among the records: why it is bad}, as far as known.
  mark: the text between the file's name and the number.
  limited: whether `max_record_bytes` applies to `sizes`.
  """

  path: str
  starts: np.ndarray
  sizes: np.ndarray
  numbers: np.ndarray
  held: np.ndarray | None = None
  errors: Mapping[int, str] = {}
  mark: str = ":"
  limited: bool = True

  def name(self, place: int) -> str:
    """The name of a record in errors."""
    number = self.numbers[place]
    return f"{self.path}{self.mark}{number}" if number else self.path

  def records(self, places: np.ndarray, policy: Policy, decode: Decode) -> list:
    """The decoded records at some positions; ValueError for a bad one."""
    for place in places:
      if int(place) in self.errors:
        raise ValueError(self.errors[int(place)])
      if self.limited:
        check_size(int(self.sizes[place]), self.name(place), policy)
    return [
      decode(self.name(place), content)
      for place, content in zip(places, self._read(places), strict=True)
    ]

  def _read(self, places: np.ndarray) -> list[bytes]:
    spans = [(int(self.starts[i]), int(self.sizes[i])) for i in places]
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


class Records(NamedTuple):
  """The concatenated records of all files.

  read: (int64 [n]) -> the decoded records; ValueError for a bad one.
  name: (index) -> the name of that record in errors.
  """

  length: int
  read: Callable[[np.ndarray], list]
  name: Callable[[int], str]


def broken(path: str, error: ValueError) -> Spans:
  """A file that counts as one bad record."""
  none = np.zeros(1, np.int64)
  return Spans(path, none, none, none, errors={0: str(error)})


def hold(spans: Spans, long: np.ndarray) -> Spans:
  """The records with their bytes in memory, except those in the mask `long`.

  Raises:
    ValueError: the file cannot be read to its end, or is too large after
      decompression.
  """
  holes = [
    (int(start), int(start + size))
    for start, size in zip(spans.starts[long], spans.sizes[long], strict=True)
  ]
  gone = np.cumsum(np.where(long, spans.sizes, 0))
  held = np.empty(int(spans.starts[-1] + spans.sizes[-1] - gone[-1]), np.uint8)
  offset = filled = 0
  for chunk in bounded.chunks(spans.path):
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
    raise ValueError(f"{spans.path}: changed while it was read")
  # A gap moves the records after it, but not its own.
  before = gone - np.where(long, spans.sizes, 0)
  return spans._replace(starts=spans.starts - before, held=held)


def joined(files: Sequence[Spans], policy: Policy, decode: Decode) -> Records:
  """The records of several files, concatenated."""
  ends = np.cumsum([len(file.starts) for file in files])

  def name(index: int) -> str:
    f = int(np.searchsorted(ends, index, side="right"))
    return files[f].name(int(index - (ends[f] - len(files[f].starts))))

  def read(indices: np.ndarray) -> list:
    indices = np.asarray(indices, np.int64)
    found: list = [None] * len(indices)
    at = np.searchsorted(ends, indices, side="right")
    for f in np.unique(at):
      rows = np.flatnonzero(at == f)
      places = indices[rows] - (ends[f] - len(files[f].starts))
      for row, record in zip(
        rows, files[f].records(places, policy, decode), strict=True
      ):
        found[row] = record
    return found

  return Records(int(ends[-1]), read, name)


def first(records: Records, policy: Policy) -> Any:
  """The first record; under "skip", the first of a sample that is readable.

  Raises:
    ValueError: it cannot be read, or under "skip", none of the sample can.
  """
  failed = None
  for place in spread(records.length) if policy.skip else (0,):
    try:
      return records.read(np.array([place]))[0]
    except ValueError as error:
      failed = failed or error
  raise failed or ValueError("there is no record")
