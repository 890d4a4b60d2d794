"""Finds the character offsets of tokens, for any tokenizer that can encode.

A text is split into words (runs of letters with their marks, runs of digits,
and every other character, including a Chinese or Japanese one, by itself), each
with the white space before it. Each word is encoded alone. If the bytes that
its tokens stand for are the word's own, they determine the offsets; otherwise,
for example if WordPiece drops case and accents or lacks a piece, all tokens of
the word span the entire word. White space before a word belongs to no token.
"""

import functools
import unicodedata
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from input_pipeline.tokenizers import Tokenizer

# Scripts without spaces, in which a character is about a word.
_SINGLE = (
  (0x2E80, 0x2FDF),
  (0x3040, 0x30FF),
  (0x31F0, 0x31FF),
  (0x3400, 0x4DBF),
  (0x4E00, 0x9FFF),
  (0xF900, 0xFAFF),
  (0x20000, 0x3FFFF),
)
# The number and length of cached words and texts, which bound the memory.
_WORDS, _LONG_WORD = 2**16, 2**8
_TEXTS, _LONG_TEXT = 2**12, 2**14


class Encoded(NamedTuple):
  """The tokens of a text.

  ids: int32 [n].
  starts: int32 [n], the first character of each, and
  ends: int32 [n], the one after its last: text[start:end].
  word: int32 [n], the index in `words` of each token's word.
  words: without the white space.
  """

  ids: np.ndarray
  starts: np.ndarray
  ends: np.ndarray
  word: np.ndarray
  words: tuple[str, ...]


def words(text: str) -> list[tuple[int, int]]:
  """Returns (start, end) of each word, including the white space before it.

  Together they cover the text; white space at its end is a word of its own.
  """
  found, begin, previous = [], 0, " "
  for i, kind in enumerate(map(_kind, text)):
    joins = (
      previous == " " or kind == "m" or (kind == previous and kind in "ld")
    )
    if kind == " ":
      joins = previous == " "
    if i and not joins:
      found.append((begin, i))
      begin = i
    # A mark continues the preceding run; at the start it counts as a letter.
    previous = kind if kind != "m" else ("l" if previous == " " else previous)
  if text:
    found.append((begin, len(text)))
  return found


def encoder(tokenizer: Tokenizer) -> Callable[[str], Encoded]:
  """Returns (text) -> Encoded; repeated texts are encoded once."""

  def of_word(word: str):
    ids = np.asarray(tokenizer.encode(word), np.int32)
    starts, ends = _places(word, tokenizer.byte_lengths[ids].astype(np.int64))
    return ids, starts, ends

  held_word = remembered(of_word, _WORDS, _LONG_WORD)

  def encode(text: str) -> Encoded:
    spans = words(text)
    parts = [held_word(text[a:b]) for a, b in spans]
    if not parts:
      none = np.zeros(0, np.int32)
      return Encoded(none, none, none, none, ())
    begins = [a for a, _ in spans]
    ids, starts, ends = (
      np.concatenate(column) for column in zip(*parts, strict=True)
    )
    sizes = [len(part[0]) for part in parts]
    shift = np.repeat(begins, sizes)
    return Encoded(
      ids.astype(np.int32),
      (starts + shift).astype(np.int32),
      (ends + shift).astype(np.int32),
      np.repeat(np.arange(len(parts)), sizes).astype(np.int32),
      tuple(text[a:b].strip() for a, b in spans),
    )

  return remembered(encode, _TEXTS, _LONG_TEXT)


def remembered(function: Callable, most: int, longest: int = _LONG_TEXT):
  """Caches the last `most` results of a function of strings.

  Strings of more than `longest` characters are not cached.
  """
  held = functools.lru_cache(maxsize=most)(function)

  def call(*texts: str):
    short = sum(map(len, texts)) <= longest
    return held(*texts) if short else function(*texts)

  return call


def _places(word: str, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns (starts, ends) in characters of tokens with these byte lengths."""
  lead = len(word) - len(word.lstrip())
  sizes = [len(c.encode()) for c in word]
  hidden, total = sum(sizes[:lead]), int(lengths.sum())
  if not lengths.all() or total not in (sum(sizes), sum(sizes) - hidden):
    whole = np.ones(len(lengths), np.int64)
    return lead * whole, len(word) * whole
  skipped = sum(sizes) - total
  stops = skipped + np.cumsum(lengths)
  character = np.repeat(np.arange(len(word)), sizes)
  ends = character[stops - 1] + 1
  starts = np.maximum(character[stops - lengths], lead)
  return starts, np.maximum(starts, ends)


@functools.lru_cache(maxsize=_WORDS)
def _kind(character: str) -> str:
  """Returns a character's kind: " ", l(etter), d(igit), m(ark) or o(ther)."""
  if character.isspace():
    return " "
  category = unicodedata.category(character)
  if category[0] == "M":
    return "m"
  if category[0] == "L":
    code = ord(character)
    alone = any(first <= code <= last for first, last in _SINGLE)
    return "o" if alone else "l"
  return "d" if category == "Nd" else "o"
