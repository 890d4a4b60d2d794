"""webdataset:GLOB: tar archives in which a sample is several files."""

import json
from typing import Any, NamedTuple

import numpy as np

from input_pipeline.bad_records import Policy, check_size
from input_pipeline.reading import bounded, tar_index
from input_pipeline.reading.paths import find_files, fingerprint
from input_pipeline.sources import Source
from input_pipeline.sources.parts import npy_bytes, samples

_IMAGES = ("jpg", "jpeg", "png", "webp")
_NAMES = {"cls": "label", "txt": "text", **dict.fromkeys(_IMAGES, "image")}
_MOST_CLASSES = 2**20
_MOST_DIGITS = 18


class _Shard(NamedTuple):
  """An archive, or one that cannot be read and counts as one sample.

  borders: int64 [samples + 1], the first member of each sample.
  error: what is wrong with it, or "".
  """

  path: str
  members: tar_index.Index
  borders: np.ndarray
  error: str = ""


def webdataset(pattern: str, policy: Policy = Policy()) -> dict[str, Source]:
  """webdataset:GLOB: archives that are not compressed, a sample per key.

  The files of a sample follow one another. Their key is the path up to the
  first dot of the file's name, and the rest is the ending, which decides the
  field: .jpg, .jpeg, .png and .webp are "image" (bytes), .cls is "label" (an
  integer in digits), .txt is "text", .npy an array "npy", which is ragged if
  its length differs. The numbers and texts of a .json object are fields of
  their own names, unless a file has that name. Other endings are fields of
  bytes: "wav". The field of an ending of several parts is named by the first
  ones: KEY.mask.png is "mask".

  A sample without a file that others have is bad if the run uses the field. A
  truncated, damaged or compressed archive is an error; under "skip" it is one
  bad record.
  """
  uri = f"webdataset:{pattern}"
  paths = find_files(pattern, uri)
  shards = [_shard(path, policy) for path in paths]
  shards = [shard for shard in shards if len(shard.borders) > 1]
  if not shards:
    raise ValueError(f"{uri} holds no file named KEY.ENDING")
  ends = np.cumsum([len(shard.borders) - 1 for shard in shards])

  def place(index: int) -> tuple[_Shard, int]:
    s = int(np.searchsorted(ends, index, side="right"))
    return shards[s], int(index - ends[s] + len(shards[s].borders) - 1)

  def name(index: int) -> str:
    shard, sample = place(index)
    if shard.error:
      return shard.path
    first = shard.members.names[shard.borders[sample]]
    return f"{shard.path}: {_divided(first)[0]}"

  def one(index: int) -> dict[str, Any]:
    return _sample(*place(index), policy)

  source = samples.source_of(int(ends[-1]), one, name, policy)
  return {
    "all": source._replace(
      num_classes=_classes(shards), fingerprint=fingerprint(paths)
    )
  }


def _divided(name: str) -> tuple[str, str]:
  """Returns (key, ending in small letters); "" for no ending."""
  folder, slash, base = name.rpartition("/")
  stem, _, ending = base.partition(".")
  return folder + slash + stem, ending.lower() if stem else ""


def _shard(path: str, policy: Policy) -> _Shard:
  try:
    found = tar_index.index(path, ("",))
  except ValueError as error:
    if not policy.skip:
      raise
    none = np.zeros(1, np.int64)
    found = tar_index.Index([""], none, none, none)
    return _Shard(path, found, np.array([0, 1]), str(error))
  keys = [_divided(name) for name in found.names]
  rows = [row for row, (_, ending) in enumerate(keys) if ending]
  found = tar_index.Index(
    [found.names[row] for row in rows],
    found.starts[rows],
    found.sizes[rows],
    found.wrong[rows],
  )
  of_rows = [keys[row][0] for row in rows]
  borders = [i for i, k in enumerate(of_rows) if not i or k != of_rows[i - 1]]
  return _Shard(path, found, np.array([*borders, len(rows)], np.int64))


def _sample(shard: _Shard, sample: int, policy: Policy) -> dict[str, Any]:
  """Returns the fields of a sample; ValueError names the file in the tar."""
  if shard.error:
    raise ValueError(shard.error)
  members = shard.members
  fields: dict[str, Any] = {}
  listed: dict[str, Any] = {}
  for row in range(*shard.borders[sample : sample + 2]):
    where = f"{shard.path}: {members.names[row]}"
    if members.wrong[row]:
      raise ValueError(f"{where}: {tar_index.reason(members.wrong[row])}")
    check_size(int(members.sizes[row]), where, policy)
    ending = _divided(members.names[row])[1]
    stem, _, kind = ending.rpartition(".")
    field = stem or _NAMES.get(kind, kind)
    if field in fields:
      raise ValueError(f"{where}: the sample has two files of {field!r}")
    try:
      value = _decoded(kind, _content(shard, row))
    except ValueError as error:
      raise ValueError(f"{where}: {error}") from None
    if isinstance(value, dict):
      prefix = f"{stem}/" if stem else ""
      listed |= {prefix + key: each for key, each in value.items()}
    else:
      fields[field] = value
  return {**listed, **fields}


def _content(shard: _Shard, row: int) -> bytes:
  size = int(shard.members.sizes[row])
  try:
    with open(shard.path, "rb", buffering=0) as file:
      file.seek(int(shard.members.starts[row]))
      content = file.read(size)
  except OSError as error:
    raise bounded.failure(shard.path, error) from None
  if len(content) != size:
    raise ValueError("cut short")
  return content


def _decoded(kind: str, content: bytes) -> Any:
  """Returns the value of a file by the last part of its ending."""
  if kind == "cls":
    return _label(content)
  if kind == "npy":
    array = npy_bytes.array_of(content)
    return array if array.ndim else array[()]
  if kind not in ("txt", "json"):
    return content
  try:
    text = content.decode("utf-8-sig")
    if kind == "txt":
      return text
    value = json.loads(text)
  except UnicodeDecodeError as error:
    raise ValueError(f"not UTF-8 at byte {error.start}") from None
  except (ValueError, RecursionError):
    raise ValueError("not JSON") from None
  if not isinstance(value, dict):
    raise ValueError("not a JSON object")
  return {k: v for k, v in value.items() if isinstance(v, (int, float, str))}


def _label(content: bytes) -> int:
  text = content[:64].strip()
  if not text.isdigit() or len(text) > _MOST_DIGITS:
    raise ValueError(f"{text[:20]!r} is not the number of a class")
  return int(text)


def _classes(shards: list[_Shard]) -> int | None:
  """Returns the number of classes, up to the largest label; None if unknown."""
  largest = -1
  for shard in shards:
    names = shard.members.names
    rows = [r for r, n in enumerate(names) if _divided(n)[1] == "cls"]
    if not rows or shard.error:
      continue
    with open(shard.path, "rb") as file:
      for row in rows:
        file.seek(int(shard.members.starts[row]))
        content = file.read(min(int(shard.members.sizes[row]), 64))
        try:
          largest = max(largest, _label(content))
        except ValueError:  # It is reported when it is read.
          continue
  return largest + 1 if 0 <= largest < _MOST_CLASSES else None
