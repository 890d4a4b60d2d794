"""The repetition rules of Gopher (Rae et al., 2021, table A1)."""

import functools
import re
from typing import NamedTuple

from input_pipeline.cleaning.parts.words import (
  above,
  check_languages,
  duplicate_characters,
  ngrams,
  passes_over,
  repeated,
  top_characters,
  words,
)
from input_pipeline.document import Document, Dropped, Result, Stage

_PARAGRAPH_BREAK = re.compile(r"\n{2,}")
_LINE_BREAK = re.compile(r"\n+")
_TOP = ((2, 0.20), (3, 0.18), (4, 0.16))
_DUPLICATE = (
  *((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10)),
)


class _Settings(NamedTuple):
  languages: tuple[str, ...] | None
  max_duplicate_paragraphs: float | None
  max_duplicate_paragraph_characters: float | None
  max_duplicate_lines: float | None
  max_duplicate_line_characters: float | None
  top_ngrams: tuple[tuple[int, float], ...]
  duplicate_ngrams: tuple[tuple[int, float], ...]
  max_words: int | None


def gopher_repetition(
  languages: tuple[str, ...] | None = ("en",),
  max_duplicate_paragraphs: float | None = 0.3,
  max_duplicate_paragraph_characters: float | None = 0.2,
  max_duplicate_lines: float | None = 0.3,
  max_duplicate_line_characters: float | None = 0.2,
  top_ngrams: tuple[tuple[int, float], ...] | None = _TOP,
  duplicate_ngrams: tuple[tuple[int, float], ...] | None = _DUPLICATE,
  max_words: int | None = 1_000_000,
) -> Stage:
  """Gopher's rules against repetitive text.

  Shares of characters refer to the whole text including white space. None
  disables a rule. The rules in order are "empty", "duplicate_paragraphs",
  "duplicate_paragraph_characters", "duplicate_lines",
  "duplicate_line_characters", "top_N_gram", "duplicate_N_gram".

  Args:
    languages: the values of fields["lang"] to judge; other documents pass
      unchanged. None judges all.
    max_duplicate_paragraphs: greatest share of paragraphs that repeat an
      earlier one.
    max_duplicate_paragraph_characters: the same by characters.
    max_duplicate_lines: greatest share of lines that repeat an earlier one.
    max_duplicate_line_characters: the same by characters.
    top_ngrams: pairs of n and the greatest share of the most frequent n-gram
      of tokens, counted with the blanks inside it.
    duplicate_ngrams: pairs of n and the greatest share of n-grams of tokens
      that repeat an earlier one, without blanks and counting no token twice.
    max_words: drops longer documents ("too_many_words"), whose n-grams would
      not fit into memory. This is not one of Gopher's rules; its quality rules
      allow a tenth as many words.
  """
  check_languages("gopher_repetition", languages)
  settings = _Settings(
    languages and tuple(languages),
    max_duplicate_paragraphs,
    max_duplicate_paragraph_characters,
    max_duplicate_lines,
    max_duplicate_line_characters,
    tuple(map(tuple, top_ngrams or ())),
    tuple(sorted(map(tuple, duplicate_ngrams or ()))),
    max_words,
  )
  return functools.partial(_judge, settings)


def _broken(s: _Settings, text: str) -> str | None:
  if not text:
    return "empty"
  paragraphs = _PARAGRAPH_BREAK.split(text.strip())
  count, characters = repeated(paragraphs)
  if above(count, s.max_duplicate_paragraphs, len(paragraphs)):
    return "duplicate_paragraphs"
  if above(characters, s.max_duplicate_paragraph_characters, len(text)):
    return "duplicate_paragraph_characters"
  lines = _LINE_BREAK.split(text)
  count, characters = repeated(lines)
  if above(count, s.max_duplicate_lines, len(lines)):
    return "duplicate_lines"
  if above(characters, s.max_duplicate_line_characters, len(text)):
    return "duplicate_line_characters"
  tokens = words(text)
  if above(len(tokens), s.max_words, 1):
    return "too_many_words"
  for n, most in s.top_ngrams:
    characters = top_characters(ngrams(tokens, n), n - 1)
    if above(characters, most, len(text)):
      return f"top_{n}_gram"
  for n, most in s.duplicate_ngrams:
    characters = duplicate_characters(ngrams(tokens, n), n)
    if characters < 0:
      break
    if above(characters, most, len(text)):
      return f"duplicate_{n}_gram"
  return None


def _judge(settings: _Settings, document: Document) -> Result:
  if passes_over(document, settings.languages):
    return document
  rule = _broken(settings, document.text)
  return Dropped(rule) if rule else document
