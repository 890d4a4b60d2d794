"""megatron:PREFIX: the documents of tokens that Megatron-LM reads."""

import hashlib
import os

import numpy as np

from common import bounded_file
from input_pipeline.bad_records import Policy, check_size
from input_pipeline.reading import bounded
from input_pipeline.reading.columns import strings
from input_pipeline.reading.paths import fingerprint
from input_pipeline.sources import Source, Tokens

_MAGIC = b"MMIDIDX\0\0"
# Magic, version, type, number of sequences and of the borders of documents.
_HEADER = 34
_TYPES = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}
# The content of the tokenizer "ids?vocab_size=N".
_IDS = hashlib.sha256(b"ids").hexdigest()


def megatron(rest: str, policy: Policy = Policy()) -> dict[str, Source]:
  """megatron:PREFIX: the documents of PREFIX.bin and PREFIX.idx.

  {"tokens": integers [n], ragged}, memory-mapped; a document that is several
  sequences is their concatenation. Language models train on the tokens as they
  are with data.tokenizer="ids?vocab_size=N"; nothing is put between documents,
  since most such files end each one with a token of its own, which "&eos=ID"
  names.

  Raises:
    ValueError: a file is missing or damaged, or its index does not fit the
      other file; one line that names it.
  """
  stem = os.path.expanduser(rest)
  for ending in (".bin", ".idx"):
    stem = stem.removesuffix(ending)
  if not os.path.basename(stem):
    raise ValueError(
      "megatron:PREFIX needs the path of PREFIX.idx without .idx"
    )
  index, data = f"{stem}.idx", f"{stem}.bin"
  dtype, sizes, pointers, borders = _index(index)
  starts = pointers // dtype.itemsize
  room = bounded.size_of(data) // dtype.itemsize
  wrong = (pointers % dtype.itemsize != 0) | (starts < 0) | (sizes < 0)
  wrong |= starts + sizes > room
  if wrong.any():
    raise ValueError(
      f"{data}: damaged or cut short: sequence {int(wrong.argmax())} of {index}"
      f" is not within its {room:,} tokens"
    )
  # An empty file cannot be mapped.
  tokens = np.memmap(data, dtype, mode="r") if room else np.zeros(0, dtype)
  native = dtype.newbyteorder("=")

  def name(i: int) -> str:
    return f"{data}: document {i}"

  def one(i: int) -> np.ndarray:
    rows = range(int(borders[i]), int(borders[i + 1]))
    size = int(sizes[rows.start : rows.stop].sum(dtype=np.int64))
    check_size(size * dtype.itemsize, name(i), policy)
    parts = [tokens[starts[r] : starts[r] + sizes[r]] for r in rows]
    found = np.concatenate([np.zeros(0, native), *parts], dtype=native)
    if len(found) and found.min() < 0:
      raise ValueError(f"{name(i)}: has the token {found.min()}")
    return found

  def ids(indices: np.ndarray, separated: bool) -> list[np.ndarray]:
    del separated  # Which documents end with eos is not known here.
    return [one(int(i)) for i in indices]

  documents, total = len(borders) - 1, int(sizes.sum(dtype=np.int64))
  return {
    "all": Source(
      documents,
      lambda indices: {"tokens": strings([one(int(i)) for i in indices])},
      name,
      fingerprint=fingerprint([index, data]),
      note=f"megatron:{rest}: {documents:,} documents of {total:,} tokens",
      tokens=Tokens("text", _IDS, ids, ended=True),
    )
  }


def _index(
  path: str,
) -> tuple[np.dtype, np.ndarray, np.ndarray, np.ndarray]:
  """Returns (type of a token, sizes, pointers in bytes, borders).

  The sizes, int32, and pointers, int64, are those of the sequences. Document i
  is the sequences borders[i] to borders[i + 1], int64.
  """
  size = bounded.size_of(path)
  with os.fdopen(bounded_file.descriptor(path), "rb") as file:
    head = file.read(_HEADER)
  if head[:9] != _MAGIC or len(head) != _HEADER:
    raise ValueError(f"{path}: not an index of Megatron-LM (MMIDIDX)")
  version = int.from_bytes(head[9:17], "little")
  if version != 1:
    raise ValueError(f"{path}: is of version {version}, not 1")
  if head[17] not in _TYPES:
    raise ValueError(f"{path}: type {head[17]} of tokens is not an integer")
  count, ends = (int.from_bytes(head[i : i + 8], "little") for i in (18, 26))
  needed = _HEADER + 12 * count + 8 * ends
  # One byte per sequence may follow, its kind in data of several modalities.
  if size not in (needed, needed + count) or not ends:
    raise ValueError(
      f"{path}: damaged: {size:,} bytes, but {count:,} sequences and {ends:,}"
      f" borders of documents have {needed:,}"
    )
  content = np.memmap(path, np.uint8, mode="r")
  sizes = content[_HEADER:][: 4 * count].view("<i4")
  pointers = content[_HEADER + 4 * count :][: 8 * count].view("<i8")
  borders = content[_HEADER + 12 * count : needed].view("<i8")
  rises = (np.diff(borders) >= 0).all()
  if not rises or borders[0] != 0 or borders[-1] != count:
    raise ValueError(
      f"{path}: damaged: the borders of documents are not sorted"
    )
  return np.dtype(_TYPES[head[17]]), sizes, pointers, borders
