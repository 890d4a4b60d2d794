"""Measures how finely a tokenizer splits text, by language."""

import functools
import re
from collections.abc import Iterable, Mapping

from input_pipeline.tokenizers import Tokenizer

_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_KANA = re.compile("[\u3040-\u30ff]")
_LATIN = re.compile("[A-Za-z]")
_LETTER = re.compile(r"[^\W\d_]")
# The least share of the letters for a text to count as of that script.
_HAN_SHARE, _LATIN_SHARE = 0.3, 0.5
_COUNTS = ("tokens", "words", "characters", "bytes", "unknown")
# The number of characters of a text by which its language is guessed.
_ENOUGH = 2000


def measure(
  tokenizer: Tokenizer, texts: Iterable[tuple[str, str]]
) -> dict[str, dict[str, int]]:
  """Returns {language: counts} of texts; languages in alphabetical order.

  tokens: the number of ids.
  words: the number of runs of characters other than white space; meaningless
    for Chinese.
  characters: code points other than white space.
  bytes: of UTF-8, including white space.
  unknown: the number of `characters` that the vocabulary lacks: encoded alone,
    they become an unknown id or pieces of their UTF-8 bytes.

  Args:
    tokenizer: the tokenizer.
    texts: (language, text).

  Raises:
    ValueError: the tokenizer cannot encode a text.
  """
  unknown = functools.cache(functools.partial(_unknown, tokenizer))
  found: dict[str, dict[str, int]] = {}
  for language, text in texts:
    counts = found.setdefault(language, dict.fromkeys(_COUNTS, 0))
    words = text.split()
    counts["tokens"] += len(tokenizer.encode(text))
    counts["words"] += len(words)
    counts["characters"] += sum(map(len, words))
    counts["bytes"] += len(text.encode())
    counts["unknown"] += sum(unknown(c) for word in words for c in word)
  return dict(sorted(found.items()))


def _unknown(tokenizer: Tokenizer, character: str) -> bool:
  ids = tokenizer.encode(character).tolist()
  if any(not tokenizer.byte_lengths[i] for i in ids):
    return True
  # A part of a character's bytes is not valid text by itself.
  return character != "\ufffd" and any(
    "\ufffd" in tokenizer.decode([i]) for i in ids
  )


def rates(counts: Mapping[str, int]) -> dict[str, float]:
  """Returns the reported ratios of one language's counts; 0 for empty counts.

  tokens_per_word, tokens_per_character: fertility.
  coverage: the share of the characters that the vocabulary has.
  bytes_per_token: compression.
  """

  def ratio(top: int, bottom: str) -> float:
    return top / counts[bottom] if counts[bottom] else 0.0

  return {
    "tokens_per_word": ratio(counts["tokens"], "words"),
    "tokens_per_character": ratio(counts["tokens"], "characters"),
    "coverage": ratio(counts["characters"] - counts["unknown"], "characters"),
    "bytes_per_token": ratio(counts["bytes"], "tokens"),
  }


def language(text: str) -> str:
  """Guesses the language of a text's beginning by script: zh, en or other.

  zh: at least 30 % of the letters are Chinese, and kana are fewer than those;
  en: at least half are A to Z, so other languages in Latin script count as en.
  """
  text = text[:_ENOUGH]
  letters = len(_LETTER.findall(text))
  han = len(_HAN.findall(text))
  if han and han >= _HAN_SHARE * letters and len(_KANA.findall(text)) < han:
    return "zh"
  if letters and len(_LATIN.findall(text)) >= _LATIN_SHARE * letters:
    return "en"
  return "other"
