"""mds:DIR: the shards of Mosaic's library Streaming."""

import functools
import json
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from common import bounded_file
from input_pipeline.bad_records import Policy, check_size
from input_pipeline.reading import bounded
from input_pipeline.reading.paths import fingerprint
from input_pipeline.sources import Source
from input_pipeline.sources.parts import mds_values, samples

_MOST_INDEX = 2**28
_MOST_SAMPLES = 2**32
# Endings of compressed shards, by the word in the index.
_PACKED = {"zstd": (".zstd", ".zst"), "gz": (".gz",)}
_SPLITS = {
  "train": "train",
  "val": "validation",
  "validation": "validation",
  "test": "test",
}


class _Shard(NamedTuple):
  """A shard.

  path: of the file with its samples, which may be compressed.
  packed: whether it is.
  size: in bytes, after decompression.
  """

  path: str
  packed: bool
  size: int
  samples: int


def mds(rest: str, policy: Policy = Policy()) -> dict[str, Source]:
  """mds:DIR: a folder with an index.json of version 2, and its shards.

  The columns are the fields: numbers, "str", and bytes, which "jpeg" and "png"
  are too; "pil" becomes the bytes of a PNG. Arrays are ragged fields if their
  lengths differ in some of the records; a column of "json" has the values of
  JSON. A column of "pkl" is refused, since reading a pickle runs its code. If
  DIR has no index.json, its folders train, val and test that have one are
  splits.

  A shard compressed with zstd or gz is decompressed in memory, one at a time;
  a file that is also there in raw form is read instead. A missing shard is an
  error.
  """
  uri, root = f"mds:{rest}", os.path.expanduser(rest)
  if os.path.exists(os.path.join(root, "index.json")):
    return {"all": _source(root, policy)}
  found = {
    split: _source(os.path.join(root, folder), policy)
    for folder, split in _SPLITS.items()
    if os.path.exists(os.path.join(root, folder, "index.json"))
  }
  if not found:
    raise ValueError(f"{uri}: the folder has no index.json")
  return found


def _source(root: str, policy: Policy) -> Source:
  index = os.path.join(root, "index.json")
  shards, columns = _index(index, root)
  ends = np.cumsum([shard.samples for shard in shards], dtype=np.int64)
  if not len(ends) or not ends[-1]:
    raise ValueError(f"{index}: lists no sample")
  unpacked = functools.lru_cache(1)(_unpacked)

  def place(index: int) -> tuple[_Shard, int]:
    s = int(np.searchsorted(ends, index, side="right"))
    return shards[s], int(index - ends[s] + shards[s].samples)

  def name(index: int) -> str:
    shard, sample = place(index)
    return f"{shard.path}:{sample}"

  def one(index: int) -> dict[str, Any]:
    shard, sample = place(index)
    if shard.packed:
      content = unpacked(shard)
      take = lambda start, size: content[start : start + size]  # noqa: E731
    else:
      take = functools.partial(_taken, shard.path)
    data = _bytes(shard, sample, take, name(index), policy)
    return mds_values.decoded(data, columns, name(index))

  source = samples.source_of(int(ends[-1]), one, name, policy)
  packed = sum(shard.packed for shard in shards)
  note = (
    f"{index}: {packed:,} shards are compressed; a shuffled run is slow unless"
    " they are decompressed"
  )
  paths = [index, *(shard.path for shard in shards)]
  return source._replace(
    fingerprint=fingerprint(paths), note=note if packed else ""
  )


def _index(path: str, root: str) -> tuple[list[_Shard], list]:
  """Returns the shards and the columns that an index.json lists."""
  content = bounded_file.read(path, _MOST_INDEX)
  try:
    found = json.loads(content)
  except (ValueError, RecursionError):
    raise ValueError(f"{path}: not JSON") from None
  try:
    version, listed = found["version"], found["shards"]
    if version != 2 or not isinstance(listed, list):
      raise ValueError(f"{path}: its version is {version!r}, not 2")
    shards = [_shard(path, root, each) for each in listed]
    kinds = [(s["column_names"], s["column_encodings"]) for s in listed]
    for number, each in enumerate(kinds):
      if each != kinds[0]:
        raise ValueError(
          f"{path}: the columns of shard {number} differ from those of shard 0"
        )
    return shards, mds_values.columns(*kinds[0], path) if kinds else []
  except (KeyError, TypeError, AttributeError) as error:
    why = f"{type(error).__name__}: {error}"
    raise ValueError(f"{path}: damaged: {why}") from None


def _shard(index: str, root: str, found: dict) -> _Shard:
  """Returns a shard of the index, of which one file must be there."""
  if found["format"] != "mds":
    raise ValueError(f"{index}: a shard is {found['format']!r}, not mds")
  raw, packed = found["raw_data"], found.get("zip_data")
  count, size = found["samples"], raw["bytes"]
  path = _inside(index, root, raw["basename"])
  for number in (count, size):
    if type(number) is not int or not 0 <= number < _MOST_SAMPLES:
      raise ValueError(f"{index}: damaged: {path} has {number!r} samples/bytes")
  if packed and not os.path.exists(path):
    path = _inside(index, root, packed["basename"])
    kind = str(found["compression"]).partition(":")[0]
    if not path.endswith(_PACKED.get(kind, ())):
      raise ValueError(
        f"{path}: compression {kind!r} is not read; valid: {', '.join(_PACKED)}"
      )
    bounded.check_inflated(path, size)
    bounded.size_of(path)
    return _Shard(path, True, size, count)
  found_size = bounded.size_of(path)
  if found_size != size:
    raise ValueError(
      f"{path}: damaged: {found_size:,} bytes, but the index gives {size:,}"
    )
  return _Shard(path, False, size, count)


def _inside(index: str, root: str, name: Any) -> str:
  parts = str(name).split("/")
  if not isinstance(name, str) or not name or {"", "..", "."} & set(parts):
    raise ValueError(f"{index}: names the file {name!r}")
  return os.path.join(root, name)


def _unpacked(shard: _Shard) -> bytes:
  content = bytearray()
  for piece in bounded.chunks(shard.path):
    content += piece
    if len(content) > shard.size:
      break
  if len(content) != shard.size:
    raise ValueError(
      f"{shard.path}: damaged: does not hold the index's {shard.size:,} bytes"
    )
  return bytes(content)


def _taken(path: str, start: int, size: int) -> bytes:
  try:
    with open(path, "rb", buffering=0) as file:
      file.seek(start)
      return file.read(size)
  except OSError as error:
    raise bounded.failure(path, error) from None


def _bytes(
  shard: _Shard,
  sample: int,
  take: Callable[[int, int], bytes],
  name: str,
  policy: Policy,
) -> bytes:
  """Returns the bytes of a sample: uint32 count, uint32 offsets, samples."""
  head, pair = take(0, 4), take(4 * (1 + sample), 8)
  if len(pair) != 8 or int.from_bytes(head, "little") != shard.samples:
    raise ValueError(f"{name}: damaged: not a shard of {shard.samples:,}")
  start, stop = np.frombuffer(pair, "<u4").tolist()
  if not 4 * (2 + shard.samples) <= start <= stop <= shard.size:
    raise ValueError(f"{name}: damaged: at bytes {start:,} to {stop:,}")
  check_size(stop - start, name, policy)
  data = take(start, stop - start)
  if len(data) != stop - start:
    raise ValueError(f"{name}: cut short")
  return data
