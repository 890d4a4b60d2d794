"""Sources of text files: stdlib:, text:GLOB, jsonl:GLOB."""

import functools
import glob
import gzip
import hashlib
import json
import os
import sysconfig

import numpy as np

from input_pipeline.source import Source

_NOT_LIBRARY = {
  "__pycache__",
  "dist-packages",
  "idle_test",
  "site-packages",
  "test",
  "tests",
}


def fingerprint(paths: list[str]) -> str:
  """A hash of the files' names, sizes and times of modification."""
  digest = hashlib.sha256()
  for path in paths:
    stat = os.stat(path)
    digest.update(f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
  return digest.hexdigest()


def find_files(pattern: str, uri: str) -> list[str]:
  """The sorted files that a glob matches; ** spans folders."""
  paths = glob.glob(os.path.expanduser(pattern), recursive=True)
  paths = sorted(os.path.abspath(p) for p in paths if os.path.isfile(p))
  if not paths:
    raise ValueError(f"{uri} matches no file")
  return paths


def _strings(values: list) -> np.ndarray:
  array = np.empty(len(values), object)
  array[:] = values
  return array


def _read_text(path: str) -> str:
  try:
    with open(path, "rb") as file:
      return file.read().decode("utf-8")
  except OSError as error:
    raise ValueError(f"{path}: {error.strerror}") from None
  except UnicodeDecodeError as error:
    raise ValueError(f"{path}: not UTF-8 at byte {error.start}") from None


def _documents(paths: list[str]) -> dict[str, Source]:
  """One document per file, its text unchanged to the byte."""

  def read(indices: np.ndarray) -> dict[str, np.ndarray]:
    return {"text": _strings([_read_text(paths[i]) for i in indices])}

  return {
    "all": Source(
      length=len(paths),
      read=read,
      name=lambda index: paths[index],
      fingerprint=fingerprint(paths),
    )
  }


def text(pattern: str) -> dict[str, Source]:
  """text:GLOB, each matching file a document."""
  return _documents(find_files(pattern, f"text:{pattern}"))


def stdlib(rest: str) -> dict[str, Source]:
  """stdlib:, the source of Python's own library, tests left out.

  About 10 MB of text that every machine has. A file that cannot be read as
  UTF-8 is left out.
  """
  if rest:
    raise ValueError(f"stdlib:{rest}: stdlib: takes no arguments")
  paths = []
  for folder, folders, files in os.walk(sysconfig.get_paths()["stdlib"]):
    folders[:] = [f for f in folders if f not in _NOT_LIBRARY]
    for file in files:
      path = os.path.join(folder, file)
      if file.endswith(".py") and os.path.isfile(path) and _is_utf8(path):
        paths.append(path)
  if not paths:
    raise ValueError("stdlib: holds no source file that can be read")
  return _documents(sorted(paths))


@functools.cache
def _is_utf8(path: str) -> bool:
  try:
    _read_text(path)
  except ValueError:
    return False
  return True


class _Lines:
  """The lines of one file, by number; offsets are found once."""

  def __init__(self, path: str):
    self.path = path
    # A compressed file has no random access: it is held in memory.
    if path.endswith(".gz"):
      try:
        with gzip.open(path) as file:
          self.data = file.read()
      except (OSError, EOFError) as error:
        raise ValueError(f"{path}: broken gzip file: {error}") from None
    elif os.path.getsize(path):
      self.data = np.memmap(path, np.uint8, mode="r")
    else:
      self.data = b""
    self.starts, self.stops, self.numbers = self._find()

  def _find(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    data = np.frombuffer(self.data, np.uint8)
    stops = [
      begin + np.flatnonzero(data[begin : begin + 2**24] == ord("\n"))
      for begin in range(0, len(data), 2**24)
    ]
    stops = np.concatenate([*stops, [len(data)]]).astype(np.int64)
    starts = np.concatenate([[0], stops[:-1] + 1]).astype(np.int64)
    full = stops - starts > 2
    for i in np.flatnonzero(~full):
      full[i] = bool(bytes(data[starts[i] : stops[i]]).strip())
    full = np.flatnonzero(full)
    return starts[full], stops[full], full + 1

  def name(self, i: int) -> str:
    return f"{self.path}:{self.numbers[i]}"

  def record(self, i: int) -> dict:
    line = bytes(self.data[self.starts[i] : self.stops[i]])
    try:
      record = json.loads(line)
    except ValueError as error:
      raise ValueError(f"{self.name(i)}: not JSON: {error}") from None
    if not isinstance(record, dict):
      raise ValueError(f"{self.name(i)}: not a JSON object")
    return record


def jsonl(pattern: str) -> dict[str, Source]:
  """jsonl:GLOB, a record per line; the first record's keys are the fields.

  Numbers and lists of numbers become arrays, other values stay as they are.
  """
  uri = f"jsonl:{pattern}"
  paths = find_files(pattern, uri)
  files = [_Lines(path) for path in paths]
  ends = np.cumsum([len(file.starts) for file in files])
  if not ends[-1]:
    raise ValueError(f"{uri} holds no record")

  def locate(index: int) -> tuple[_Lines, int]:
    f = int(np.searchsorted(ends, index, side="right"))
    return files[f], int(index - (ends[f] - len(files[f].starts)))

  def record(index: int) -> dict:
    file, line = locate(index)
    return file.record(line)

  fields = list(record(0))

  def read(indices: np.ndarray) -> dict[str, np.ndarray]:
    records = [record(i) for i in indices]
    for i, found in zip(indices, records, strict=True):
      missing = [field for field in fields if field not in found]
      if missing:
        file, line = locate(i)
        raise ValueError(f"{file.name(line)}: no field {missing[0]!r}")
    return {f: _column([each[f] for each in records]) for f in fields}

  def name(index: int) -> str:
    file, line = locate(index)
    return file.name(line)

  return {
    "all": Source(
      length=int(ends[-1]),
      read=read,
      name=name,
      fingerprint=fingerprint(paths),
    )
  }


def _column(values: list) -> np.ndarray:
  """An array of numbers where the values are, else of objects."""
  try:
    array = np.array(values)
  except ValueError:
    return _strings(values)
  return array if array.dtype.kind in "biuf" else _strings(values)
