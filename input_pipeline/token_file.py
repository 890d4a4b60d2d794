"""A split of a source as one memory-mapped file of token ids."""

import hashlib
import json
import os
from collections.abc import Iterator

import numpy as np

from input_pipeline import tokenizer as tokenizers
from input_pipeline.bad_records import Skipped, Tally, identify
from input_pipeline.documents import documents
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
  tally: Tally | None = None,
) -> np.ndarray:
  """The tokens of a split, memory-mapped; tokenized at the first call.

  Documents follow one another with `tokenizer.eos` between them. Where the
  policy of `tally` skips, one that cannot be read or encoded is left out; what
  was left out is kept beside the file, and counted again at each later call.

  Returns:
    A read-only array [N] of the narrowest unsigned type that holds the ids.
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
  folder = tokenizers.cache_folder(cache_dir)
  path = os.path.join(folder, f"{digest}.{dtype.name}")
  if not (os.path.exists(path) and _recall(path, tally)):
    chunks = _chunks(source, tokenizer, dtype, text_key, uri, tally, path)
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
  tally: Tally,
  path: str,
) -> Iterator[bytes]:
  eos = b""
  found = documents(source, text_key, uri, tally.policy)
  for i, text, wrong in found:
    if text is not None:
      try:
        ids = tokenizer.encode(text).astype(dtype)
      except ValueError as error:
        wrong = f"{source.name(i)}: {error}"
        if not tally.policy.skip:
          raise ValueError(wrong) from None
    if wrong:
      tally.add(1, [(source.name(i), wrong)])
      continue
    tally.add(1)
    yield eos + ids.tobytes()
    if tokenizer.eos is not None:
      eos = np.array([tokenizer.eos], dtype).tobytes()
  if tally.policy.skip:
    # Before the tokens are there: whoever finds them finds this, too.
    kept = {**tally.skipped()._asdict(), "first": tally.first()}
    tokenizers.write_atomically(_beside(path), [json.dumps(kept).encode()])


def _beside(path: str) -> str:
  return f"{path}.skipped.json"


def _recall(path: str, tally: Tally) -> bool:
  """Counts what was left out of a token file; False where that is not known."""
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
