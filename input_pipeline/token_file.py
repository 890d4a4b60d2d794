"""A split of a source as one memory-mapped file of token ids."""

import hashlib
import json
import os
from collections.abc import Iterator

import numpy as np

from input_pipeline import tokenizer as tokenizers
from input_pipeline.source import Source
from input_pipeline.tokenizer import Tokenizer

_FORMAT = 1


def token_file(
  source: Source,
  tokenizer: Tokenizer,
  *,
  uri: str,
  split: str,
  text_key: str = "text",
  cache_dir: str | None = None,
) -> np.ndarray:
  """The tokens of a split, memory-mapped; tokenized at the first call.

  Documents follow one another with `tokenizer.eos` between them.

  Returns:
    A read-only array [N] of the narrowest unsigned type that holds the ids.
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
  if not os.path.exists(path):
    chunks = _chunks(source, tokenizer, dtype, text_key, uri)
    tokenizers.write_atomically(path, chunks)
  if not os.path.getsize(path):
    return np.zeros(0, dtype)
  return np.memmap(path, dtype, mode="r")


def _chunks(
  source: Source,
  tokenizer: Tokenizer,
  dtype: np.dtype,
  text_key: str,
  uri: str,
) -> Iterator[bytes]:
  texts = tokenizers.texts(source, text_key, uri)
  for i, text in enumerate(texts):
    if i and tokenizer.eos is not None:
      yield np.array([tokenizer.eos], dtype).tobytes()
    try:
      yield tokenizer.encode(text).astype(dtype).tobytes()
    except ValueError as error:
      raise ValueError(f"{source.name(i)}: {error}") from None
