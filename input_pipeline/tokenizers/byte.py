"""Bytes as tokens: encodes any text and has nothing to learn."""

from collections.abc import Iterable

import numpy as np

from input_pipeline.tokenizers import Tokenizer, utf8

FORMS = ("byte",)
FILE = None


def load(spec: str, content: bytes) -> Tokenizer:
  """Returns a tokenizer of bytes; NUL, which text does not contain, is eos."""
  del content

  def encode(text: str | bytes) -> np.ndarray:
    return np.frombuffer(utf8(text), np.uint8).astype(np.int32)

  def decode(ids: Iterable[int]) -> str:
    return bytes(int(i) for i in ids).decode("utf-8", errors="replace")

  ones = np.ones(256, np.uint32)
  return Tokenizer(spec, encode, decode, 256, 0, ones, None, b"byte")
