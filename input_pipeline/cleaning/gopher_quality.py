"""The quality rules of Gopher (Rae et al., 2021, appendix A.1.1)."""

import functools
from typing import NamedTuple

from input_pipeline.cleaning.parts.words import (
  above,
  below,
  check_languages,
  passes_over,
  words,
)
from input_pipeline.document import Document, Dropped, Result, Stage


class _Settings(NamedTuple):
  languages: tuple[str, ...] | None
  min_words: int | None
  max_words: int | None
  min_mean_word_length: float | None
  max_mean_word_length: float | None
  max_symbols_per_word: float | None
  max_bullet_lines: float | None
  max_ellipsis_lines: float | None
  min_alphabetic_words: float | None
  min_stop_words: int | None
  stop_words: frozenset[str]


def gopher_quality(
  languages: tuple[str, ...] | None = ("en",),
  min_words: int | None = 50,
  max_words: int | None = 100_000,
  min_mean_word_length: float | None = 3,
  max_mean_word_length: float | None = 10,
  max_symbols_per_word: float | None = 0.1,
  max_bullet_lines: float | None = 0.9,
  max_ellipsis_lines: float | None = 0.3,
  min_alphabetic_words: float | None = 0.8,
  min_stop_words: int | None = 2,
  stop_words: tuple[str, ...] = (
    *("the", "be", "to", "of", "and", "that", "have", "with"),
  ),
) -> Stage:
  """Gopher's rules for length, symbols, lists and stop words.

  Words are counted without punctuation marks. Symbols and alphabetic words are
  measured against all tokens including marks, as in FineWeb. None disables a
  rule.

  Args:
    languages: the values of fields["lang"] to judge; other documents pass
      unchanged. None judges all.
    min_words: drops documents with fewer words ("too_few_words").
    max_words: drops documents with more words ("too_many_words").
    min_mean_word_length: in characters ("short_words").
    max_mean_word_length: in characters ("long_words").
    max_symbols_per_word: greatest number per token of "#" ("hashes") and of
      "..." or "…" ("ellipses").
    max_bullet_lines: greatest share of lines that begin with "•" or "-"
      ("bullets").
    max_ellipsis_lines: greatest share of lines that end in "..." or "…"
      ("ellipsis_lines").
    min_alphabetic_words: least share of tokens with a letter ("few_letters").
    min_stop_words: least number of different stop words ("few_stop_words").
    stop_words: matched with their case.
  """
  check_languages("gopher_quality", languages)
  settings = _Settings(
    languages and tuple(languages),
    min_words,
    max_words,
    min_mean_word_length,
    max_mean_word_length,
    max_symbols_per_word,
    max_bullet_lines,
    max_ellipsis_lines,
    min_alphabetic_words,
    min_stop_words,
    frozenset(stop_words),
  )
  return functools.partial(_judge, settings)


def _broken_by_words(
  s: _Settings, tokens: tuple[str, ...], marks: list[str]
) -> str | None:
  """The first broken rule on the number and length of words, or None."""
  count = len(tokens) - len(marks)
  total = sum(map(len, tokens)) - sum(map(len, marks))
  if below(count, s.min_words, 1):
    return "too_few_words"
  if above(count, s.max_words, 1):
    return "too_many_words"
  if below(total, s.min_mean_word_length, count):
    return "short_words"
  if above(total, s.max_mean_word_length, count):
    return "long_words"
  return None


def _broken_by_lines(s: _Settings, text: str) -> str | None:
  """The first broken rule on bullets and ellipses of lines, or None."""
  lines = text.splitlines()
  bullets = sum(line.lstrip().startswith(("•", "-")) for line in lines)
  if above(bullets, s.max_bullet_lines, len(lines)):
    return "bullets"
  ends = sum(line.rstrip().endswith(("...", "…")) for line in lines)
  if above(ends, s.max_ellipsis_lines, len(lines)):
    return "ellipsis_lines"
  return None


def _broken(s: _Settings, text: str) -> str | None:
  tokens = words(text)
  # Most tokens consist of letters only, which is quick to test.
  others = [t for t in tokens if not t.isalpha()]
  marks = [t for t in others if not any(map(str.isalnum, t))]
  rule = _broken_by_words(s, tokens, marks)
  if rule:
    return rule
  if above(text.count("#"), s.max_symbols_per_word, len(tokens)):
    return "hashes"
  ellipses = text.count("...") + text.count("…")
  if above(ellipses, s.max_symbols_per_word, len(tokens)):
    return "ellipses"
  rule = _broken_by_lines(s, text)
  if rule:
    return rule
  without_letter = sum(not any(map(str.isalpha, t)) for t in others)
  with_letter = len(tokens) - without_letter
  if below(with_letter, s.min_alphabetic_words, len(tokens)):
    return "few_letters"
  if below(len(s.stop_words.intersection(tokens)), s.min_stop_words, 1):
    return "few_stop_words"
  return None


def _judge(settings: _Settings, document: Document) -> Result:
  if passes_over(document, settings.languages):
    return document
  rule = _broken(settings, document.text)
  return Dropped(rule) if rule else document
