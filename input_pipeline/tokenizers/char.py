"""Characters as tokens: the sorted set of the data's characters."""

import json
from collections.abc import Iterable

import numpy as np

from input_pipeline.bad_records import Policy
from input_pipeline.sources import open_source
from input_pipeline.sources.parts.documents import texts
from input_pipeline.tokenizers import Corpus, Tokenizer

FORMS = ("char",)
FILE = "tokenizer.json"


def _codepoints(text: str | bytes) -> np.ndarray:
  text = text.decode("utf-8") if isinstance(text, bytes) else text
  return np.frombuffer(text.encode("utf-32-le"), np.uint32)


def learn(
  spec: str, corpus: Corpus, cache_dir: str | None, policy: Policy
) -> bytes:
  """Returns the sorted set of all characters of the data, as JSON."""
  del spec, cache_dir  # There are no settings, and the cache is not used.
  found = np.zeros(0, np.uint32)
  for uri, text_key in corpus:
    source = open_source(uri, "all", policy)
    for text in texts(source, text_key, uri, policy):
      found = np.union1d(found, _codepoints(text))
  characters = "".join(chr(c) for c in found)
  return json.dumps({"characters": characters}, ensure_ascii=False).encode()


def load(spec: str, content: bytes) -> Tokenizer:
  """Returns the tokenizer of these characters, in the order of code points."""
  try:
    characters = json.loads(content)["characters"]
    vocabulary = _codepoints(characters)
    size = len(vocabulary)
    if not size or (vocabulary[1:] <= vocabulary[:-1]).any():
      raise ValueError("not in order")
  except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
    raise ValueError("tokenizer.json does not hold characters") from None

  def encode(text: str | bytes) -> np.ndarray:
    points = _codepoints(text)
    ids = np.searchsorted(vocabulary, points)
    known = vocabulary[np.minimum(ids, size - 1)] == points
    if not known.all():
      unknown = chr(points[np.flatnonzero(~known)[0]])
      raise ValueError(f"character {unknown!r} is not in the vocabulary")
    return ids.astype(np.int32)

  def decode(ids: Iterable[int]) -> str:
    return "".join(characters[int(i)] for i in ids)

  lengths = np.array([len(c.encode()) for c in characters], np.uint32)
  return Tokenizer(
    "char", encode, decode, size, None, lengths, "tokenizer.json", content
  )
