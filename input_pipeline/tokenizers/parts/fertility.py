"""How finely a tokenizer cuts text, by language."""

import functools
import re
from collections.abc import Iterable, Mapping

from input_pipeline.tokenizers import Tokenizer

_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_KANA = re.compile("[\u3040-\u30ff]")
_LATIN = re.compile("[A-Za-z]")
_LETTER = re.compile(r"[^\W\d_]")
# Of the letters, for a text to count as of that script.
_HAN_SHARE, _LATIN_SHARE = 0.3, 0.5
_COUNTS = ("tokens", "words", "characters", "bytes", "unknown")
# How much of a text is looked at for its language.
_ENOUGH = 2000


def measure(
  tokenizer: Tokenizer, texts: Iterable[tuple[str, str]]
) -> dict[str, dict[str, int]]:
  """{language: counts} of texts; languages in alphabetical order.

  tokens: ids that the texts are encoded as.
  words: what stands between white space; of no use for Chinese.
  characters: code points but white space.
  bytes: of UTF-8, white space included.
  unknown: those of `characters` that the vocabulary does not have: encoded
    alone, an unknown id stands for it, or only pieces of its UTF-8 do.

  Args:
    tokenizer: the tokenizer.
    texts: (language, text).

  Raises:
    ValueError: the tokenizer cannot spell a text.
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
  # A piece of a character's bytes is no text by itself.
  return character != "\ufffd" and any(
    "\ufffd" in tokenizer.decode([i]) for i in ids
  )


def rates(counts: Mapping[str, int]) -> dict[str, float]:
  """What is told of one language's counts; 0 where there is nothing.

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
  """A guess by script alone, from the beginning of a text: zh, en or other.

  zh: of the letters at least 30 % are Chinese, and kana are fewer than those;
  en: at least half are A to Z, so that other Latin scripts pass for it.
  """
  text = text[:_ENOUGH]
  letters = len(_LETTER.findall(text))
  han = len(_HAN.findall(text))
  if han and han >= _HAN_SHARE * letters and len(_KANA.findall(text)) < han:
    return "zh"
  if letters and len(_LATIN.findall(text)) >= _LATIN_SHARE * letters:
    return "en"
  return "other"
