"""The main text of HTML pages, by trafilatura (Barbaresi, ACL 2021)."""

import atexit
import contextlib
import functools
import importlib.util
import os
import subprocess
import sys

from input_pipeline.cleaning.parts import extract_page
from input_pipeline.cleaning.parts.extract_page import (
  ANSWER,
  FAVORS,
  PAGE,
  Settings,
)
from input_pipeline.document import Document, Dropped, Result, Stage


def extract(
  favor: str = "balanced",
  fallback: bool = False,
  comments: bool = False,
  tables: bool = True,
  max_bytes: int = 2**24,
  max_tags: int = 2**16,
) -> Stage:
  """A stage that takes the main text out of a page's HTML.

  Sets the text and, where the page has one, the field "title"; the HTML is
  gone then. A document with a text and without HTML passes unchanged. Drops
  what is "too_large", "unparsable" (it broke the parser, or took it a minute)
  or has "no_main_text".

  The parser runs in a process of its own.

  Args:
    favor: "balanced", "precision" (less text) or "recall" (more).
    fallback: also asks readability and justext, as trafilatura does by default:
      slower, and here not better (benchmarks/data/extraction.py).
    comments: keeps those of readers.
    tables: keeps the texts of tables.
    max_bytes: of a page.
    max_tags: of a page, as its "<" are counted; the time grows with them.

  Raises:
    ValueError: `favor` has no such value, or trafilatura is not installed.
  """
  if favor not in FAVORS:
    raise ValueError(f"favor {favor!r}; valid: {', '.join(FAVORS)}")
  if importlib.util.find_spec("trafilatura") is None:
    raise ValueError(
      "extract needs trafilatura, which is not installed: "
      "pip install -e '.[clean]'"
    )
  settings = Settings(favor, fallback, comments, tables)
  return functools.partial(_extract, settings, max_bytes, max_tags)


def _extract(
  settings: Settings, max_bytes: int, max_tags: int, document: Document
) -> Result:
  html = document.html
  if not html:
    return document if document.text else Dropped("no_main_text")
  if len(html) > max_bytes or html.count(b"<") > max_tags:
    return Dropped("too_large")
  found = _ask(settings, html)
  if found is None:
    return Dropped("unparsable")
  title, text = found
  if not text.strip():
    return Dropped("no_main_text")
  fields = dict(document.fields)
  if title:
    fields["title"] = title
  return document._replace(text=text, fields=fields, html=b"")


# Processes that parse, and wait for a page; as many as ever worked at once.
_IDLE: list[subprocess.Popen] = []


def _ask(settings: Settings, html: bytes) -> tuple[str, str] | None:
  """(title, text) of a page; None where the parser died of it."""
  try:
    parser = _IDLE.pop()
  except IndexError:
    parser = _start()
  try:
    answer = _exchange(parser, settings, html)
  except BaseException:
    _end(parser)
    raise
  if answer is None:
    _end(parser)
  else:
    _IDLE.append(parser)
  return answer


def _start() -> subprocess.Popen:
  return subprocess.Popen(
    # -P: the modules beside it are not what others mean by their names.
    [sys.executable, "-P", extract_page.__file__],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    stderr=subprocess.DEVNULL,
  )


def _exchange(
  parser: subprocess.Popen, settings: Settings, html: bytes
) -> tuple[str, str] | None:
  flags = FAVORS.index(settings.favor), *map(int, settings[1:])
  try:
    parser.stdin.write(PAGE.pack(*flags, len(html)))
    parser.stdin.write(html)
    parser.stdin.flush()
    sizes = parser.stdout.read(ANSWER.size)
    if len(sizes) < ANSWER.size:
      return None
    title, text = ANSWER.unpack(sizes)
    answer = parser.stdout.read(title + text)
  except BrokenPipeError:
    return None
  if len(answer) < title + text:
    return None
  return answer[:title].decode(), answer[title:].decode()


def _end(parser: subprocess.Popen) -> None:
  parser.kill()
  for pipe in (parser.stdin, parser.stdout):
    with contextlib.suppress(BrokenPipeError):
      pipe.close()
  parser.wait()


def _end_all() -> None:
  while _IDLE:
    _end(_IDLE.pop())


def _forget() -> None:
  """After a fork: they answer the process that started them."""
  for parser in _IDLE:
    parser.returncode = 0
  _IDLE.clear()


atexit.register(_end_all)
os.register_at_fork(after_in_child=_forget)
