"""Removal of lines that occur in an earlier document."""

import functools
import re
from collections.abc import Iterable

import numpy as np

from input_pipeline.cleaning.parts import places
from input_pipeline.document import (
  Conclusion,
  Counted,
  Document,
  Dropped,
  Global,
  Result,
)
from input_pipeline.similarity.text_hashes import (
  NORMAL_FORMS,
  normal_form,
  text_hash,
)

_RECORD = np.dtype([("hash", "<u8", (2,)), ("place", "<u4"), ("line", "<u4")])
_FOUND = np.dtype([("key", "<u8"), ("line", "<u4")])
_REMOVED = np.dtype([("place", "<u4"), ("line", "<u4")])
_SEPARATORS = {
  "line": re.compile(r"(\n)"),
  "paragraph": re.compile(r"(\n(?:[ \t\r]*\n)+)"),
}


def duplicate_lines(
  unit: str = "line",
  min_length: int = 20,
  normalize: str = "case+whitespace",
  partitions: int = 256,
) -> Global:
  """Removes lines that occur in an earlier document of the corpus.

  The first document with a line keeps it, as often as it occurs there. A
  document without remaining text is dropped as "only_duplicate_lines".

  A partition compares the lines whose hashes have the same remainder, and
  needs 24 bytes of memory for each; the concluding step needs 12 bytes for
  each line removed.

  Args:
    unit: "line", or "paragraph", which blank lines separate.
    min_length: in characters of the normal form; shorter lines are kept.
    normalize: as in exact_duplicates.
    partitions: the number of partitions that are compared independently.

  Raises:
    ValueError: a setting is wrong.
  """
  for key, value, valid in (
    ("unit", unit, tuple(_SEPARATORS)),
    ("normalize", normalize, NORMAL_FORMS),
  ):
    if value not in valid:
      raise ValueError(
        f"duplicate_lines: {key}={value!r} is unknown; valid:"
        f" {', '.join(valid)}"
      )
  places.check_partitions("duplicate_lines", "partitions", partitions)
  return Global(
    partitions,
    functools.partial(_summarize, unit, min_length, normalize, partitions),
    _combine,
    _conclude,
    functools.partial(_judge, unit),
  )


def _summarize(
  unit: str,
  min_length: int,
  normalize: str,
  partitions: int,
  documents: Iterable[Document],
) -> list[bytes]:
  rows = []
  for place, document in enumerate(documents):
    # Every other piece is a separator.
    for i, line in enumerate(_SEPARATORS[unit].split(document.text)[::2]):
      if len(line) >= min_length:
        line = normal_form(line, normalize)
        if len(line) >= min_length:
          rows.append((text_hash(line), place, i))
  records = np.array(rows, _RECORD)
  part = records["hash"][:, 0] % np.uint64(partitions)
  return [records[part == p].tobytes() for p in range(partitions)]


def _combine(partition: int, shards: list[bytes]) -> bytes:
  """The key of the document and the number of each line to remove."""
  del partition
  found = [np.frombuffer(shard, _RECORD) for shard in shards]
  records = np.concatenate([np.zeros(0, _RECORD), *found])
  keys = np.concatenate(
    [np.zeros(0, np.uint64)]
    + [places.keys(s, rows["place"]) for s, rows in enumerate(found)]
  )
  high, low = records["hash"].T
  order = np.lexsort((records["line"], keys, low, high))
  high, low, keys = high[order], low[order], keys[order]
  first = np.ones(len(keys), bool)
  first[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
  owner = keys[first][np.cumsum(first) - 1]
  remove = np.zeros(int(np.sum(owner != keys)), _FOUND)
  remove["key"] = keys[owner != keys]
  remove["line"] = records["line"][order][owner != keys]
  return remove.tobytes()


def _conclude(partitions: list[bytes], counts: list[int]) -> Conclusion:
  found = np.concatenate([np.frombuffer(p, _FOUND) for p in partitions])
  found = found[np.lexsort((found["line"], found["key"]))]
  removed = np.zeros(len(found), _REMOVED)
  removed["place"] = found["key"].astype(np.uint32)  # The lower half.
  removed["line"] = found["line"]
  shards = found["key"] >> np.uint64(32)
  ends = np.searchsorted(shards, np.arange(len(counts) + 1, dtype=np.uint64))
  return Conclusion(
    [removed[a:b].tobytes() for a, b in zip(ends, ends[1:], strict=False)],
    {
      "documents": sum(counts),
      "documents_changed": len(np.unique(found["key"])),
      "lines_removed": len(found),
    },
  )


def _judge(unit: str, verdict: bytes) -> functools.partial:
  return functools.partial(_remove, unit, np.frombuffer(verdict, _REMOVED))


def _remove(
  unit: str, removed: np.ndarray, place: int, document: Document
) -> Result:
  start, stop = np.searchsorted(removed["place"], [place, place + 1])
  if start == stop:
    return document
  gone = set(removed["line"][start:stop].tolist())
  pieces = _SEPARATORS[unit].split(document.text)
  kept = [i for i in range(0, len(pieces), 2) if i // 2 not in gone]
  # Lines and the breaks behind them; none behind the last.
  text = "".join(pieces[i] + pieces[i + 1] for i in kept[:-1])
  text += pieces[kept[-1]] if kept else ""
  if not text.strip():
    return Dropped("only_duplicate_lines")
  return Counted(
    document._replace(text=text), {"lines_removed": int(stop - start)}
  )
