"""Removal of near duplicates, found by MinHash-LSH."""

import functools
import json
from collections.abc import Iterable

import numpy as np

from input_pipeline.cleaning.parts import clusters, places
from input_pipeline.document import Conclusion, Document, Global
from input_pipeline.similarity import minhash, odd_sketch
from input_pipeline.similarity.shingles import UNITS, shingles

_PAIRS = 65_536
# Different documents of a bucket with which each of them is compared.
_WINDOW = 1_000
_SHORT_TEXT = 120
_LARGEST = 20
_EXAMPLES = 5


def near_duplicates(
  ngram: int = 5,
  unit: str = "auto",
  num_perm: int = 112,
  bands: int = 14,
  threshold: float | None = 0.8,
  keep: str = "first",
  partitions_per_band: int = 1,
) -> Global:
  """Keeps one document of each cluster of near duplicates.

  The others are dropped as "near_duplicate". Two documents are candidates if
  all rows of a band of their signatures are equal. With the similarity s this
  has the probability 1 - (1 - s^rows)^bands: for 112 values in 14 bands of 8
  rows, as in FineWeb, 0.92 at s = 0.8 and 0.58 at s = 0.7. A candidate pair
  counts if its similarity, estimated from odd sketches, reaches the threshold.
  Documents connected by such pairs form a cluster.

  The values are datasketch's ("affine32", seed 1). A partition holds the
  documents of a band or of a part of a band: 20 bytes each, and 261 bytes more
  if there is a threshold. The first band also holds 120 characters of each
  document for the report. The concluding step holds near duplicates only.

  Args:
    ngram: n; a shorter text counts as one n-gram.
    unit: of the n-grams: "words", "characters", or "auto", which takes
      characters if the language (from fields["lang"], or else from the
      letters) is written without spaces.
    num_perm: the number of MinHash values of a signature.
    bands: the number of bands of a signature; must divide num_perm.
    threshold: least Jaccard similarity of a pair, at least 0.5. None accepts
      all candidates, as FineWeb does.
    keep: which document to keep: "first", "longest", or "field:NAME" for the
      one with the greatest number in that field.
    partitions_per_band: the number of partitions of each band.

  Raises:
    ValueError: a setting is wrong.
  """
  places.check_keep("near_duplicates", keep)
  places.check_partitions(
    "near_duplicates", "partitions_per_band", partitions_per_band
  )
  if unit not in UNITS:
    raise ValueError(
      f"near_duplicates: unit={unit!r} is unknown; valid: {', '.join(UNITS)}"
    )
  if bands < 1 or num_perm % bands:
    raise ValueError(
      f"near_duplicates: bands={bands} does not divide num_perm={num_perm}"
    )
  if threshold is not None and not 0.5 <= threshold <= 1:
    raise ValueError(
      f"near_duplicates: threshold={threshold} is not in [0.5, 1]"
    )
  settings = (ngram, unit, num_perm, bands, threshold, keep)
  partitions = bands * partitions_per_band
  return Global(
    partitions,
    functools.partial(_summarize, *settings, partitions_per_band),
    functools.partial(_combine, threshold),
    _conclude,
    functools.partial(places.drop, "near_duplicate"),
  )


def _record(threshold: float | None) -> np.dtype:
  fields = [("bucket", "<u8"), ("place", "<u4"), ("rank", "<f8")]
  if threshold is not None:
    fields += [
      ("level", "u1"),
      ("sizes", "<u2", (2,)),
      ("parity", "u1", (2, odd_sketch.BITS // 8)),
    ]
  return np.dtype(fields)


_NODE = np.dtype([("key", "<u8"), ("root", "<u8"), ("rank", "<f8")])


def _summarize(
  ngram: int,
  unit: str,
  num_perm: int,
  bands: int,
  threshold: float | None,
  keep: str,
  parts: int,
  documents: Iterable[Document],
) -> list[bytes]:
  rows, buckets, examples = [], [], []

  def sets():
    for place, document in enumerate(documents):
      members = shingles(document.text, document.fields, ngram, unit)
      if len(members):
        row = (0, place, places.rank("near_duplicates", keep, document))
        if threshold is not None:
          row += odd_sketch.sketch(members)
        rows.append(row)
        short = document.text[:_SHORT_TEXT]
        examples.append((document.id, short))
        yield members

  for values in minhash.signatures(sets(), num_perm):
    buckets.append(minhash.bands(values, bands))
  records = np.array(rows, _record(threshold))
  found = []
  for band in range(bands):
    records["bucket"] = [row[band] for row in buckets]
    for part in range(parts):
      chosen = np.flatnonzero(records["bucket"] % np.uint64(parts) == part)
      texts = [examples[i] for i in chosen] if band == 0 else []
      found.append(_pack(records[chosen], texts))
  return found


def _pack(records: np.ndarray, texts: list) -> bytes:
  """The number of bytes of the records, these, and texts as JSON."""
  data = records.tobytes()
  size = len(data).to_bytes(8, "little")
  return size + data + (json.dumps(texts).encode() if texts else b"")


def _unpack(data: bytes, dtype: np.dtype) -> tuple[np.ndarray, list]:
  size = int.from_bytes(data[:8], "little")
  texts = json.loads(data[8 + size :]) if len(data) > 8 + size else []
  return np.frombuffer(data, dtype, size // dtype.itemsize, 8), texts


def _combine(
  threshold: float | None, partition: int, shards: list[bytes]
) -> bytes:
  """The documents with a near duplicate in a partition, and their roots."""
  del partition
  found, keys, texts = [], [], {}
  for shard, data in enumerate(shards):
    records, short = _unpack(data, _record(threshold))
    found.append(records)
    keys.append(places.keys(shard, records["place"]))
    if short:
      texts.update(zip(keys[-1].tolist(), short, strict=True))
  records = np.concatenate([np.zeros(0, _record(threshold)), *found])
  key = np.concatenate([np.zeros(0, np.uint64), *keys])
  order = np.lexsort((key, records["bucket"]))
  bucket = records["bucket"][order]
  same = bucket[1:] == bucket[:-1]
  shared = np.zeros(len(bucket), bool)
  shared[1:] |= same
  shared[:-1] |= same
  rows = order[shared]
  records, key = records[rows], key[rows]
  a, b = _pairs(records, threshold)
  nodes, roots = clusters.forest(key[a], key[b])
  at = np.argsort(key, kind="stable")
  at = at[np.searchsorted(key[at], nodes)]
  packed = np.zeros(len(nodes), _NODE)
  packed["key"], packed["root"] = nodes, roots
  packed["rank"] = records["rank"][at]
  return _pack(packed, _examples(records["bucket"][at], nodes, texts))


def _pairs(
  records: np.ndarray, threshold: float | None
) -> tuple[np.ndarray, np.ndarray]:
  """Rows of near-duplicate pairs; records are sorted by bucket and key."""
  n = len(records)
  bucket = records["bucket"]
  if threshold is None or not n:
    first = np.flatnonzero(np.append(True, bucket[1:] != bucket[:-1])[:n])
    owner = np.repeat(first, np.diff(np.append(first, n)))
    return owner[owner != np.arange(n)], np.setdiff1d(np.arange(n), first)
  # Of equal sketches in a bucket only the first is compared.
  names = ("bucket", "level", "sizes", "parity")
  what = np.concatenate(
    [
      np.ascontiguousarray(records[m]).view(np.uint8).reshape(n, -1)
      for m in names
    ],
    1,
  )
  _, first, inverse = np.unique(
    what.view(f"V{what.shape[1]}").ravel(),
    return_index=True,
    return_inverse=True,
  )
  again = np.flatnonzero(first[inverse] != np.arange(n))
  a, b = [first[inverse][again]], [again]
  rows = np.sort(first)
  sketches = odd_sketch.Sketches(
    *(records[m][rows] for m in ("level", "sizes", "parity"))
  )
  bucket = bucket[rows]
  for distance in range(1, min(_WINDOW + 1, len(rows))):
    near = np.flatnonzero(bucket[distance:] == bucket[:-distance])
    if not len(near):
      break
    for start in range(0, len(near), _PAIRS):
      one = near[start : start + _PAIRS]
      other = one + distance
      alike = odd_sketch.jaccard(sketches, one, other) >= threshold
      a.append(rows[one[alike]])
      b.append(rows[other[alike]])
  return np.concatenate(a), np.concatenate(b)


def _examples(buckets: np.ndarray, nodes: np.ndarray, texts: dict) -> list:
  """The largest buckets: [size, first key, [[key, id, short text], ...]]."""
  if not texts:
    return []
  _, inverse, counts = np.unique(
    buckets, return_inverse=True, return_counts=True
  )
  order = np.lexsort((nodes, inverse))
  starts = np.cumsum(counts) - counts
  largest = np.lexsort((nodes[order[starts]], -counts))[:_LARGEST]
  found = []
  for group in largest:
    members = order[starts[group] :][: min(counts[group], _EXAMPLES)]
    shown = [[int(nodes[i]), *texts[int(nodes[i])]] for i in members]
    found.append([int(counts[group]), shown[0][0], shown])
  return found


def found_clusters(
  partitions: list[bytes],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """The clusters of all partitions: (keys, numbers of clusters, ranks).

  keys: uint64 keys of the documents with a near duplicate, sorted. The number
  of a cluster is the index of its first document among the keys.
  """
  nodes = np.concatenate([_unpack(data, _NODE)[0] for data in partitions])
  keys, numbers = np.unique(
    np.concatenate([nodes["key"], nodes["root"]]), return_inverse=True
  )
  half = len(nodes)
  root = clusters.connected_components(numbers[:half], numbers[half:])
  rank = np.zeros(len(keys))
  rank[numbers[:half]] = nodes["rank"]
  return keys, root, rank


def _conclude(partitions: list[bytes], counts: list[int]) -> Conclusion:
  keys, root, rank = found_clusters(partitions)
  order = np.lexsort((keys, -rank, root))  # The one to keep comes first.
  first = np.ones(len(keys), bool)
  first[1:] = root[order][1:] != root[order][:-1]
  dropped = keys[order[~first]]
  starts = np.flatnonzero(first)
  sizes = np.diff(np.append(starts, len(keys)))
  summary = {
    "documents": sum(counts),
    "clusters": len(sizes),
    "dropped": len(dropped),
    "sizes": _histogram(sizes),
    "largest": _largest(keys, root, _texts(partitions)),
  }
  return Conclusion(places.places_by_shard(dropped, len(counts)), summary)


def _histogram(sizes: np.ndarray) -> dict[str, int]:
  """{size: clusters}, by sizes of 2, 3 to 4, 5 to 8, 9 to 16, ..."""
  power = np.ceil(np.log2(sizes)).astype(int)
  return {
    f"{2 ** (p - 1) + 1} to {2**p}" if p > 1 else "2": int(np.sum(power == p))
    for p in np.unique(power).tolist()
  }


def _texts(partitions: list[bytes]) -> dict[int, list[str]]:
  """{key: [id, short text]} of the largest buckets of all partitions."""
  groups = [g for data in partitions for g in _unpack(data, _NODE)[1]]
  groups.sort(key=lambda group: (-group[0], group[1]))
  return {k: rest for g in groups[:_LARGEST] for k, *rest in g[2]}


def _largest(keys: np.ndarray, root: np.ndarray, texts: dict) -> list[dict]:
  """The largest clusters; among equal sizes, those with example texts first.

  Texts are known only of documents that share a bucket of the first band. They
  are as they reached this stage, so `redact` should run before it.
  """
  shown: dict[int, list] = {}
  for key in sorted(texts):
    place = np.searchsorted(keys, np.uint64(key))
    name, text = texts[key]
    shown.setdefault(int(root[place]), []).append({"id": name, "text": text})
  numbers, sizes = np.unique(root, return_counts=True)
  known = np.isin(numbers, list(shown))
  order = np.lexsort((numbers, ~known, -sizes))[:_LARGEST]
  return [
    {
      "size": int(sizes[i]),
      "examples": shown.get(int(numbers[i]), [])[:_EXAMPLES],
    }
    for i in order
  ]
