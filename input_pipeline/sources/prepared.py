"""prepared:DIR: the records and tokens written by input_pipeline.prepare."""

import functools
import os

import numpy as np

from input_pipeline.bad_records import Policy
from input_pipeline.reading import bounded, prepared_index
from input_pipeline.reading.paths import fingerprint
from input_pipeline.sources import Source, Tokens, jsonl


def prepared(root: str, policy: Policy = Policy()) -> dict[str, Source]:
  """prepared:DIR: the splits that DIR/index.json names.

  The fields are the first record's: "id", "text" and any others. If the text
  was tokenized too, a run with that tokenizer ("prepared:DIR") uses the tokens
  and does not read the records. A missing file, or one whose number of
  documents differs from that in the index, is an error.
  """
  if not root:
    raise ValueError(
      "prepared:DIR needs the output folder of input_pipeline.prepare"
    )
  index = prepared_index.read(root)
  return {
    name: _split(index, name, split, policy)
    for name, split in index.splits.items()
    if split.documents
  }


def _split(
  index: prepared_index.Index,
  name: str,
  split: prepared_index.Split,
  policy: Policy,
) -> Source:
  # A missing file is reported now, not days later when it is read.
  sizes = [bounded.size_of(path) for path in split.records]
  full = [p for p, size in zip(split.records, sizes, strict=True) if size]
  where = f"{index.path}: split {name!r}"

  @functools.cache
  def records() -> Source:
    if not full:
      raise ValueError(f"{where}: its record files are empty")
    needed = ("id", index.text_key) if index.text_key else ("id",)
    found = jsonl.of_files(full, policy, needed)
    if found.length != split.documents:
      raise ValueError(
        f"{where} has {found.length:,} records, but the index lists "
        f"{split.documents:,}"
      )
    return found

  tokens = None
  if split.tokens and index.tokenizer is not None:
    read = functools.lru_cache(2)(functools.partial(_reader, where, split))
    tokens = Tokens(
      index.text_key,
      index.tokenizer.sha256,
      lambda indices, separated: read(separated)(indices),
    )
  return Source(
    split.documents,
    lambda indices: records().read(indices),
    lambda i: records().name(i),
    fingerprint=fingerprint([*split.records, *split.tokens]),
    tokens=tokens,
  )


def _reader(where: str, split: prepared_index.Split, separated: bool):
  """Returns (int64 [n]) -> [token ids of each document]."""
  gap = int(separated)
  shards = [_shard(path, gap) for path in split.tokens]
  stops = np.cumsum([len(ends) for _, ends in shards])
  if stops[-1] != split.documents:
    raise ValueError(
      f"{where} has the tokens of {stops[-1]:,} documents, but the index "
      f"lists {split.documents:,}"
    )

  def read(indices: np.ndarray) -> list[np.ndarray]:
    found = []
    for index in indices:
      shard = int(np.searchsorted(stops, index, side="right"))
      tokens, ends = shards[shard]
      within = int(index - (stops[shard] - len(ends)))
      start = int(ends[within - 1]) + gap if within else 0
      found.append(tokens[start : int(ends[within])])
    return found

  return read


def _shard(path: str, gap: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns (tokens [N], ends int64 [documents]), memory-mapped and checked."""
  stem, _, kind = path.rpartition(".")
  dtype = np.dtype(kind)
  ends = _mapped(f"{stem}.ends", np.dtype(np.int64).newbyteorder("<"))
  tokens = _mapped(path, dtype.newbyteorder("<"))
  if (np.diff(ends) < gap).any() or (ends[:1] < 0).any():
    raise ValueError(f"{stem}.ends: damaged: its values are not in order")
  if (ends[-1] if len(ends) else 0) != len(tokens):
    raise ValueError(
      f"{path}: damaged: {len(tokens):,} tokens, but its .ends file gives "
      f"{int(ends[-1]) if len(ends) else 0:,}"
    )
  return tokens, ends


def _mapped(path: str, dtype: np.dtype) -> np.ndarray:
  size = bounded.size_of(path)
  if size % dtype.itemsize:
    raise ValueError(
      f"{path}: damaged: {size:,} bytes are not a multiple of {dtype}"
    )
  if not size:
    return np.zeros(0, dtype)
  try:
    return np.memmap(os.fspath(path), dtype, mode="r")
  except OSError as error:
    raise bounded.failure(path, error) from None
