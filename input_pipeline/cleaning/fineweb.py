"""The heuristic filters of FineWeb (Penedo et al., 2024, section 3.6)."""

import functools
from typing import NamedTuple

from input_pipeline.cleaning.parts.words import (
  TERMINAL_MARKS,
  above,
  below,
  check_languages,
  passes_over,
  repeated,
  words,
)
from input_pipeline.document import Document, Dropped, Result, Stage


class _Settings(NamedTuple):
  languages: tuple[str, ...] | None
  min_lines_with_mark: float | None
  max_short_lines: float | None
  short_line: int
  max_duplicate_characters: float | None
  max_newlines_per_word: float | None


def fineweb(
  languages: tuple[str, ...] | None = ("en",),
  min_lines_with_mark: float | None = 0.12,
  max_short_lines: float | None = 0.67,
  short_line: int = 30,
  max_duplicate_characters: float | None = 0.01,
  max_newlines_per_word: float | None = 0.3,
) -> Stage:
  """FineWeb's rules for lines and lists; None disables a rule.

  Args:
    languages: the values of fields["lang"] to judge; other documents pass
      unchanged. None judges all.
    min_lines_with_mark: least share of lines that end in a terminal mark
      ("few_lines_with_mark").
    max_short_lines: greatest share of lines of at most `short_line` characters
      ("short_lines").
    short_line: in characters.
    max_duplicate_characters: greatest share of characters in lines that repeat
      an earlier one ("duplicate_characters"). The paper has 0.1; the program
      that made the data set has 0.01.
    max_newlines_per_word: greatest number of line breaks per token ("list").
  """
  check_languages("fineweb", languages)
  settings = _Settings(
    languages and tuple(languages),
    min_lines_with_mark,
    max_short_lines,
    short_line,
    max_duplicate_characters,
    max_newlines_per_word,
  )
  return functools.partial(_judge, settings)


def _broken(s: _Settings, text: str) -> str | None:
  lines = [line for line in text.split("\n") if line and not line.isspace()]
  if not lines:
    return "empty"
  ended = sum(line.endswith(TERMINAL_MARKS) for line in lines)
  if below(ended, s.min_lines_with_mark, len(lines)):
    return "few_lines_with_mark"
  short = sum(len(line) <= s.short_line for line in lines)
  if above(short, s.max_short_lines, len(lines)):
    return "short_lines"
  newlines = text.count("\n")
  characters = repeated(lines)[1]
  if above(characters, s.max_duplicate_characters, len(text) - newlines):
    return "duplicate_characters"
  if above(newlines, s.max_newlines_per_word, len(words(text))):
    return "list"
  return None


def _judge(settings: _Settings, document: Document) -> Result:
  if passes_over(document, settings.languages):
    return document
  rule = _broken(settings, document.text)
  return Dropped(rule) if rule else document
