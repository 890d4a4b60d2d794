"""The rules of C4 (Raffel et al., 2020, section 2.2), line by line."""

import functools
import re
from collections import Counter
from typing import NamedTuple

from input_pipeline.cleaning.parts.words import (
  check_languages,
  passes_over,
  sentence_count,
)
from input_pipeline.document import Counted, Document, Dropped, Result, Stage

_ENDS = (".", "?", "!", '"', "'")
_CITATION = re.compile(r"\[(?:\d*|edit|citation needed)\]")
_POLICIES = re.compile(
  "terms of use|privacy policy|cookie policy|uses cookies|use of cookies"
  "|use cookies"
)

_DROPPING = frozenset(("lorem_ipsum", "curly_bracket"))


class _Settings(NamedTuple):
  languages: tuple[str, ...] | None
  min_sentences: int | None
  min_words_per_line: int | None
  max_word_length: int | None
  terminal_mark: bool
  javascript: bool
  policy: bool
  lorem_ipsum: bool
  curly_bracket: bool
  citations: bool
  bad_words: re.Pattern | None


def c4(
  languages: tuple[str, ...] | None = ("en",),
  min_sentences: int | None = 5,
  min_words_per_line: int | None = 3,
  max_word_length: int | None = 1000,
  terminal_mark: bool = True,
  javascript: bool = True,
  policy: bool = True,
  lorem_ipsum: bool = True,
  curly_bracket: bool = True,
  citations: bool = True,
  bad_words: tuple[str, ...] = (),
) -> Stage:
  """The heuristics of C4, which remove lines and drop some pages.

  Where the paper and its authors' program differ, this follows the program: a
  page is dropped only for a line that would otherwise have been kept. The
  remaining lines are joined by single newlines.

  Args:
    languages: the values of fields["lang"] to judge; other documents pass
      unchanged. None judges all.
    min_sentences: drops a document whose remaining lines have fewer.
    min_words_per_line: removes lines with fewer words, split by white space.
    max_word_length: removes lines with a longer word, in characters.
    terminal_mark: removes lines that do not end in one of . ? ! " ' or that
      end in "...".
    javascript: removes lines that contain this word.
    policy: removes lines about cookies, privacy or terms of use.
    lorem_ipsum: drops documents that contain this phrase.
    curly_bracket: drops documents that contain "{".
    citations: removes [1], [edit] and [citation needed].
    bad_words: drops documents that contain one of these lower-case words.
  """
  check_languages("c4", languages)
  pattern = "|".join(map(re.escape, bad_words))
  settings = _Settings(
    languages and tuple(languages),
    min_sentences,
    min_words_per_line,
    max_word_length,
    terminal_mark,
    javascript,
    policy,
    lorem_ipsum,
    curly_bracket,
    citations,
    re.compile(rf"(?<!\w)(?:{pattern})(?!\w)") if bad_words else None,
  )
  return functools.partial(_judge, settings)


def _fault(line: str, words: list[str], settings: _Settings) -> str | None:
  """The rule that removes a line, or the whole document if in _DROPPING."""
  s = settings
  if s.terminal_mark and (not line.endswith(_ENDS) or line.endswith("...")):
    return "lines_without_terminal_mark"
  if s.min_words_per_line and len(words) < s.min_words_per_line:
    return "lines_too_short"
  lower = line.lower()
  if s.lorem_ipsum and "lorem ipsum" in lower:
    return "lorem_ipsum"
  if s.javascript and "javascript" in lower:
    return "lines_with_javascript"
  if s.curly_bracket and "{" in line:
    return "curly_bracket"
  if s.policy and _POLICIES.search(lower):
    return "lines_with_policy"
  return None


def _judge(settings: _Settings, document: Document) -> Result:
  if passes_over(document, settings.languages):
    return document
  if settings.bad_words and settings.bad_words.search(document.text.lower()):
    return Dropped("bad_word")
  counts, kept = Counter(), []
  longest = settings.max_word_length
  for line in map(str.strip, document.text.splitlines()):
    words = line.split()
    if longest and len(line) > longest and max(map(len, words)) > longest:
      counts["lines_with_long_word"] += 1
      continue
    if settings.citations and "[" in line:
      line = _CITATION.sub("", line)
    fault = _fault(line, words, settings)
    if fault is None:
      kept.append(line)
    elif fault in _DROPPING:
      return Dropped(fault)
    elif line:
      counts[fault] += 1
  if settings.min_sentences and not _enough(kept, settings.min_sentences):
    return Dropped("too_few_sentences")
  document = document._replace(text="\n".join(kept).strip())
  return Counted(document, dict(counts)) if counts else document


def _enough(lines: list[str], least: int) -> bool:
  """Returns whether a text has a number of sentences; stops counting there."""
  count = 0
  for line in lines:
    count += sentence_count(line)
    if count >= least:
      return True
  return False
