"""A split of a source as one memory-mapped file of token ids."""

import array
import hashlib
import json
import os
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from input_pipeline import tokenizer as tokenizers
from input_pipeline.source import Source
from input_pipeline.tokenizer import Tokenizer

_FORMAT = 2


class TokenFile(NamedTuple):
  """The documents of a split, one after another.

  tokens: [N], read-only, of the narrowest unsigned type that holds the ids.
  ends: int64 [documents], where each document ends, before the eos that may
    follow it.
  path: of the tokens; what is derived from them is kept beside it.
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
) -> TokenFile:
  """The tokens of a split, memory-mapped; tokenized at the first call.

  Documents follow one another with `tokenizer.eos` between them.
  """
  dtype = np.min_scalar_type(max(tokenizer.vocab_size - 1, 0))
  identity = [
    _FORMAT,
    uri,
    split,
    text_key,
    source.fingerprint,
    tokenizer.spec,
    hashlib.sha256(tokenizer.content).hexdigest(),
  ]
  digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]
  folder = tokenizers.cache_folder(cache_dir)
  path = os.path.join(folder, f"{digest}.{dtype.name}")
  ends_path = os.path.join(folder, f"{digest}.ends")
  if not (os.path.exists(path) and os.path.exists(ends_path)):
    ends = array.array("q")
    chunks = _chunks(source, tokenizer, dtype, text_key, uri)
    counted = _counted(chunks, dtype.itemsize, ends)
    tokenizers.write_atomically(path, counted)
    tokenizers.write_atomically(ends_path, [ends.tobytes()])
  return TokenFile(_mapped(path, dtype), _mapped(ends_path, np.int64), path)


def _mapped(path: str, dtype) -> np.ndarray:
  if not os.path.getsize(path):
    return np.zeros(0, dtype)
  return np.memmap(path, dtype, mode="r")


def _counted(
  chunks: Iterator[bytes], itemsize: int, ends: array.array
) -> Iterator[bytes]:
  """The chunks; where each one ends is appended to `ends`."""
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
) -> Iterator[bytes]:
  """A chunk a document: the eos after the one before, then its tokens."""
  texts = tokenizers.texts(source, text_key, uri)
  has_eos = tokenizer.eos is not None
  for i, text in enumerate(texts):
    eos = np.array([tokenizer.eos], dtype).tobytes() if i and has_eos else b""
    try:
      yield eos + tokenizer.encode(text).astype(dtype).tobytes()
    except ValueError as error:
      raise ValueError(f"{source.name(i)}: {error}") from None
