"""Keys of the documents of a corpus: (shard, place in the shard) in 64 bits.

The order of the keys is the order of the documents in the corpus, however it is
cut into shards.
"""

import functools
import math

import numpy as np

from input_pipeline.document import Document, Dropped, Result

_PLACE_BITS = np.uint64(32)


def keys(shard: int, places: np.ndarray) -> np.ndarray:
  """Returns the keys, uint64, of places in a shard."""
  return (np.uint64(shard) << _PLACE_BITS) | places.astype(np.uint64)


def places_by_shard(found: np.ndarray, shards: int) -> list[bytes]:
  """Returns the sorted places, uint32, of the keys of each shard."""
  found = np.sort(found)
  bounds = np.arange(shards + 1, dtype=np.uint64) << _PLACE_BITS
  ends = np.searchsorted(found, bounds)
  places = found.astype(np.uint32)  # The lower half.
  return [places[a:b].tobytes() for a, b in zip(ends, ends[1:], strict=False)]


def drop(rule: str, verdict: bytes) -> functools.partial:
  """Returns (place, Document) -> Result, which drops a verdict's places."""
  places = frozenset(np.frombuffer(verdict, np.uint32).tolist())
  return functools.partial(_drop, rule, places)


def _drop(
  rule: str, places: frozenset[int], place: int, document: Document
) -> Result:
  return Dropped(rule) if place in places else document


def check_partitions(stage: str, setting: str, number: int) -> None:
  """Raises ValueError unless the number of partitions is positive."""
  if number < 1:
    raise ValueError(f"{stage}: {setting}={number} is less than 1")


def check_keep(stage: str, keep: str) -> None:
  """Raises ValueError unless `keep` names a way to choose among duplicates."""
  name = keep.removeprefix("field:")
  if keep not in ("first", "longest") and (name == keep or not name):
    raise ValueError(
      f"{stage}: keep={keep!r} is none of 'first', 'longest', 'field:NAME'"
    )


def rank(stage: str, keep: str, document: Document) -> float:
  """Returns the rank of a document among its duplicates; the highest stays.

  Of equal ranks the first document is kept. One without the field ranks last.

  Raises:
    ValueError: the field holds no number; it names the document.
  """
  if keep == "first":
    return 0.0
  if keep == "longest":
    return float(len(document.text))
  name = keep.removeprefix("field:")
  value = document.fields.get(name)
  if value is None:
    return -math.inf
  if not isinstance(value, (int, float)) or math.isnan(value):
    raise ValueError(
      f"{stage}: keep={keep!r}: document {document.id!r} has {name}={value!r},"
      " which is not a number"
    )
  return float(value)
