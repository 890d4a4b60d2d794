"""Numbers as tokens: for data that was tokenized elsewhere."""

import re
from collections.abc import Iterable

import numpy as np

from input_pipeline.tokenizers import Tokenizer

FORMS = ("ids?vocab_size=N&eos=ID",)
FILE = None
_MOST = 2**24


def load(spec: str, content: bytes) -> Tokenizer:
  """Returns the tokenizer of ids from 0 to N - 1, whose text is "17 4 99".

  "&eos=ID", which may be left out, is the id that ends a document: it is put
  between documents that do not end with it, and ends a generated text.

  Bits per byte then count the bytes of these digits, not of the text that was
  tokenized.

  Raises:
    ValueError: N is missing, or N or ID is out of range; or, from `encode`, a
      word is not one of the ids.
  """
  del content
  form = r"ids\?vocab_size=([0-9]{1,9})(?:&eos=([0-9]{1,9}))?"
  found = re.fullmatch(form, spec)
  size = int(found[1]) if found else 0
  if not 2 <= size <= _MOST:
    raise ValueError(
      f"tokenizer {spec!r}: ids?vocab_size=N needs an N from 2 to {_MOST:,};"
      " &eos=ID may follow"
    )
  eos = None if not found or found[2] is None else int(found[2])
  if eos is not None and eos >= size:
    raise ValueError(
      f"tokenizer {spec!r}: eos={eos} is not an id below {size:,}"
    )

  def encode(text: str | bytes) -> np.ndarray:
    text = text.decode("utf-8") if isinstance(text, bytes) else text
    words = text.split()
    for word in words:
      if not re.fullmatch("[0-9]{1,9}", word) or int(word) >= size:
        raise ValueError(f"{word[:20]!r} is not an id below {size:,}")
    return np.array(words, object).astype(np.int32)

  def decode(ids: Iterable[int]) -> str:
    return " ".join(str(int(i)) for i in ids)

  # With the space that follows.
  digits = np.arange(size)[:, None] >= 10 ** np.arange(1, 8)
  lengths = (2 + digits.sum(1)).astype(np.uint32)
  if eos is not None:
    lengths[eos] = 0
  return Tokenizer(spec, encode, decode, size, eos, lengths, None, b"ids")
