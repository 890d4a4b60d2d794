"""Finds where words begin in a sequence of tokens, from the tokens' text.

A word is a run of letters and digits, with the space before it. A Chinese
character is a word, as in BERT's tokenization, and so is any other symbol. The
text that a token adds is found by decoding it after another token.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from input_pipeline.tokenizers import Tokenizer

# The blocks that BERT splits: CJK unified ideographs, their extensions A to E,
# and compatibility ideographs.
_CHINESE = (
  (0x4E00, 0x9FFF),
  (0x3400, 0x4DBF),
  (0x20000, 0x2CEAF),
  (0xF900, 0xFAFF),
  (0x2F800, 0x2FA1F),
)


class Words(NamedTuple):
  """The effect of each token on words; all bool [V].

  opens: it begins a word in any position.
  joins: it continues the word before it, if that is open.
  leaves_open: the token after it may continue its word.

  So a token begins a word if it opens one, or does not join, or the token
  before it does not leave its word open.
  """

  opens: np.ndarray
  joins: np.ndarray
  leaves_open: np.ndarray


def words(tokenizer: Tokenizer) -> Words:
  """Returns the effect of each token of the vocabulary."""
  real = (tokenizer.byte_lengths > 0).tobytes()
  return _words(tokenizer.spec, tokenizer.encode, tokenizer.decode, real)


@functools.lru_cache(maxsize=4)
def _words(spec: str, encode: Callable, decode: Callable, real: bytes) -> Words:
  try:
    anchor = [int(i) for i in encode("a")]
  except ValueError:  # a character vocabulary without "a"
    anchor = []
  before = len(decode(anchor)) if anchor else 0
  found = np.zeros((3, len(real)), bool)
  for i in np.flatnonzero(np.frombuffer(real, bool)):
    if spec == "byte":
      found[:, i] = _of_byte(int(i))
    else:
      found[:, i] = _of_text(decode([*anchor, int(i)])[before:])
  return Words(*found)


def _of_text(text: str) -> tuple[bool, bool, bool]:
  if not text:
    return False, False, False
  if text[0].isspace():
    return True, False, text[-1].isspace() or _in_word(text[-1])
  return False, _in_word(text[0]), _in_word(text[-1])


def _of_byte(byte: int) -> tuple[bool, bool, bool]:
  """Classifies a byte token; in UTF-8, Chinese begins at 0xE0 or above."""
  if byte < 0x80:
    return _of_text(chr(byte))
  return byte >= 0xE0, byte < 0xE0, True


def _in_word(character: str) -> bool:
  """Returns whether a character is part of a run; undecodable bytes count."""
  point = ord(character)
  if any(low <= point <= high for low, high in _CHINESE):
    return False
  return character.isalnum() or character in "_\ufffd"
