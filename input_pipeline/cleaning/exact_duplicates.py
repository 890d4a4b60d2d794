"""Removal of exact duplicates: one of several equal documents is kept."""

import functools
from collections.abc import Iterable

import numpy as np

from input_pipeline.cleaning.parts import places
from input_pipeline.document import Conclusion, Document, Global
from input_pipeline.similarity.text_hashes import (
  NORMAL_FORMS,
  record,
  text_hash,
)

_RECORD = np.dtype([("hash", "<u8", (2,)), ("place", "<u4"), ("rank", "<f8")])
_LARGEST = 20


def exact_duplicates(
  by: str = "text",
  normalize: str = "whitespace",
  keep: str = "first",
  partitions: int = 64,
) -> Global:
  """Keeps one of several equal documents and drops the rest.

  Documents are compared by 128-bit hashes and dropped as "exact_duplicate".
  All texts that consist of white space only are equal. A partition compares
  the documents whose hashes have the same remainder, and needs 28 bytes of
  memory for each.

  Args:
    by: "text", or "record" for the text and all fields, as for rows of a
      table.
    normalize: the differences to ignore: "none", "whitespace" (its amount and
      kind), or "case+whitespace".
    keep: which document to keep: "first", "longest", or "field:NAME" for the
      one with the greatest number in that field.
    partitions: the number of partitions that are compared independently.

  Raises:
    ValueError: a setting is wrong.
  """
  if by not in ("text", "record"):
    raise ValueError(
      f"exact_duplicates: by={by!r} is neither 'text' nor 'record'"
    )
  if normalize not in NORMAL_FORMS:
    raise ValueError(
      f"exact_duplicates: normalize={normalize!r} is unknown; valid:"
      f" {', '.join(NORMAL_FORMS)}"
    )
  places.check_keep("exact_duplicates", keep)
  places.check_partitions("exact_duplicates", "partitions", partitions)
  return Global(
    partitions,
    functools.partial(_summarize, by, normalize, keep, partitions),
    _combine,
    _conclude,
    functools.partial(places.drop, "exact_duplicate"),
  )


def _summarize(
  by: str,
  normalize: str,
  keep: str,
  partitions: int,
  documents: Iterable[Document],
) -> list[bytes]:
  value = record if by == "record" else lambda document: document.text
  rows = [
    (
      text_hash(value(document), normalize),
      place,
      places.rank("exact_duplicates", keep, document),
    )
    for place, document in enumerate(documents)
  ]
  records = np.array(rows, _RECORD)
  part = records["hash"][:, 0] % np.uint64(partitions)
  return [records[part == p].tobytes() for p in range(partitions)]


def _combine(partition: int, shards: list[bytes]) -> bytes:
  """Sizes of the groups, and the keys to drop: a count, then both."""
  del partition
  found = [np.frombuffer(shard, _RECORD) for shard in shards]
  records = np.concatenate(found) if found else np.zeros(0, _RECORD)
  keys = np.concatenate(
    [places.keys(s, rows["place"]) for s, rows in enumerate(found)]
    or [np.zeros(0, np.uint64)]
  )
  # Of equal texts the one to keep comes first.
  high, low = records["hash"].T
  order = np.lexsort((keys, -records["rank"], low, high))
  high, low, keys = high[order], low[order], keys[order]
  again = (high[1:] == high[:-1]) & (low[1:] == low[:-1])
  drop = np.concatenate([np.zeros(min(1, len(keys)), bool), again])
  sizes = np.diff(np.append(np.flatnonzero(~drop), len(keys)))
  sizes = sizes[sizes > 1].astype(np.uint64)
  return np.concatenate(
    [np.array([len(sizes)], np.uint64), sizes, keys[drop]]
  ).tobytes()


def _conclude(partitions: list[bytes], counts: list[int]) -> Conclusion:
  sizes, dropped = [], []
  for partition in partitions:
    numbers = np.frombuffer(partition, np.uint64)
    count = int(numbers[0])
    sizes.append(numbers[1 : 1 + count])
    dropped.append(numbers[1 + count :])
  all_sizes = np.sort(np.concatenate(sizes))[::-1]
  drop = np.concatenate(dropped)
  return Conclusion(
    places.places_by_shard(drop, len(counts)),
    {
      "documents": sum(counts),
      "texts_that_recur": len(all_sizes),
      "dropped": len(drop),
      "largest": all_sizes[:_LARGEST].tolist(),
    },
  )
