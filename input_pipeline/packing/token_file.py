"""Stores a split of a source as one memory-mapped file of token ids."""

import array
import hashlib
import json
import os
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from common import files
from input_pipeline.bad_records import Policy, Skipped, Tally, identify
from input_pipeline.sources import Source
from input_pipeline.sources.parts.documents import documents
from input_pipeline.tokenizers import Tokenizer

_FORMAT = 2
# The number of documents whose stored tokens are copied at once.
_TAKEN = 1024


class TokenFile(NamedTuple):
  """The documents of a split, concatenated.

  tokens: [N], read-only, of the narrowest unsigned type that holds the ids.
  ends: int64 [documents], where each document ends, before the eos that may
    follow it.
  path: of the tokens; derived files are kept beside it.
  """

  tokens: np.ndarray
  ends: np.ndarray
  path: str


def token_file(
  source: Source,
  tokenizer: Tokenizer,
  *,
  uri: str,
  split: str,
  text_key: str = "text",
  cache_dir: str | None = None,
  tally: Tally | None = None,
) -> TokenFile:
  """Returns the tokens of a split, memory-mapped; tokenized on the first call.

  Each document begins with `tokenizer.bos`, and `tokenizer.eos` separates
  documents, if the tokenizer has them. If the policy of `tally` skips,
  documents that cannot be read or encoded are left out; they are recorded
  beside the file, and counted again on each later call.
  """
  tally = tally or Tally()
  dtype = np.min_scalar_type(max(tokenizer.vocab_size - 1, 0))
  identity = [
    _FORMAT,
    uri,
    split,
    text_key,
    source.fingerprint,
    tokenizer.spec,
    hashlib.sha256(tokenizer.content).hexdigest(),
    *identify(tally.policy),
  ]
  digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]
  folder = files.cache_folder(cache_dir)
  path = os.path.join(folder, f"{digest}.{dtype.name}")
  ends_path = os.path.join(folder, f"{digest}.ends")
  there = os.path.exists(path) and os.path.exists(ends_path)
  if not (there and _recall(path, tally)):
    ends = array.array("q")
    chunks = _chunks(source, tokenizer, dtype, text_key, uri, tally, path)
    counted = _counted(chunks, dtype.itemsize, ends)
    files.write_atomically(path, counted)
    files.write_atomically(ends_path, [ends.tobytes()])
  return TokenFile(_mapped(path, dtype), _mapped(ends_path, np.int64), path)


def _mapped(path: str, dtype) -> np.ndarray:
  if not os.path.getsize(path):
    return np.zeros(0, dtype)
  return np.memmap(path, dtype, mode="r")


def _counted(
  chunks: Iterator[bytes], itemsize: int, ends: array.array
) -> Iterator[bytes]:
  """Yields the chunks, and appends the end of each one to `ends`."""
  end = 0
  for chunk in chunks:
    end += len(chunk) // itemsize
    ends.append(end)
    yield chunk


def _chunks(
  source: Source,
  tokenizer: Tokenizer,
  dtype: np.dtype,
  text_key: str,
  uri: str,
  tally: Tally,
  path: str,
) -> Iterator[bytes]:
  eos = bos = b""
  if tokenizer.bos is not None:
    bos = np.array([tokenizer.bos], dtype).tobytes()
  # For this file alone, since the tally may count others too.
  own = Tally(tally.policy._replace(max_bad_share=1.0))
  kept = source.tokens
  digest = hashlib.sha256(tokenizer.content).hexdigest()
  if kept and kept[:2] == (text_key, digest):
    found = _kept(source, tokenizer, uri)
  else:
    found = _encoded(source, tokenizer, text_key, uri, tally.policy)
  for i, ids, wrong in found:
    bad = [(source.name(i), wrong)] if wrong else []
    own.add(1, bad)
    tally.add(1, bad)
    if bad:
      continue
    yield eos + bos + ids.astype(dtype).tobytes()
    if tokenizer.eos is not None:
      eos = np.array([tokenizer.eos], dtype).tobytes()
  if tally.policy.skip:
    # Written before the tokens, so that it exists whenever they do.
    kept = {**own.skipped()._asdict(), "first": own.first()}
    files.write_atomically(_beside(path), [json.dumps(kept).encode()])


def _encoded(
  source: Source, tokenizer: Tokenizer, text_key: str, uri: str, policy: Policy
) -> Iterator[tuple[int, np.ndarray | None, str]]:
  """Yields (index, ids, "") of each document, or (index, None, reason)."""
  for i, text, wrong in documents(source, text_key, uri, policy):
    ids = None
    if text is not None:
      try:
        ids = tokenizer.encode(text)
      except ValueError as error:
        wrong = f"{source.name(i)}: {error}"
        if not policy.skip:
          raise ValueError(wrong) from None
    yield i, ids, wrong


def _kept(
  source: Source, tokenizer: Tokenizer, uri: str
) -> Iterator[tuple[int, np.ndarray, str]]:
  """As `_encoded`, for the tokens that are stored beside the source."""
  for start in range(0, source.length, _TAKEN):
    indices = np.arange(start, min(start + _TAKEN, source.length))
    found = source.tokens.read(indices, tokenizer.eos is not None)
    for i, ids in zip(indices, found, strict=True):
      if len(ids) and ids.max() >= tokenizer.vocab_size:
        raise ValueError(
          f"{uri}: damaged: document {i} has the token {ids.max()}, but the "
          f"tokenizer {tokenizer.vocab_size}"
        )
      # The token that ends a document is put between them by `_chunks`.
      ended = source.tokens.ended and len(ids) and ids[-1] == tokenizer.eos
      yield int(i), ids[:-1] if ended else ids, ""


def _beside(path: str) -> str:
  return f"{path}.skipped.json"


def _recall(path: str, tally: Tally) -> bool:
  """Counts the documents left out of a token file; False if not recorded."""
  if not tally.policy.skip:
    return True
  try:
    with open(_beside(path), "rb") as file:
      kept = json.load(file)
    skipped = Skipped(kept["count"], kept["read"], tuple(kept["names"]))
    first = kept["first"]
  except (OSError, ValueError, KeyError, TypeError):
    return False
  tally.load(skipped, first)
  return True
