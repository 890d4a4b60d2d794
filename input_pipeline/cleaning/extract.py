"""The main text of HTML pages, by trafilatura (Barbaresi, ACL 2021)."""

import atexit
import contextlib
import functools
import importlib.util
import os
import subprocess
import sys

from input_pipeline import charset
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
  """A stage that extracts the main text of an HTML page.

  The page is decoded by its byte order mark, the field "charset" (what HTTP
  declares), the page's own declaration, or detection, in this order. Sets the
  text and, if the page has a title, the field "title"; removes the HTML and
  the field "charset". A document that has a text but no HTML passes unchanged.
  Drops pages as "too_large", "unparsable" (the parser crashed or ran for a
  minute) or "no_main_text".

  The parser runs in a separate process.

  Args:
    favor: "balanced", "precision" (less text) or "recall" (more text).
    fallback: also use readability and justext, which trafilatura does by
      default; slower and here not better (benchmarks/data/extraction.py).
    comments: keep readers' comments.
    tables: keep the text of tables.
    max_bytes: the greatest size of a page in bytes.
    max_tags: the greatest number of "<" in a page, on which the time depends.

  Raises:
    ValueError: `favor` is unknown, or trafilatura is not installed.
  """
  if favor not in FAVORS:
    raise ValueError(
      f"extract: favor={favor!r} is unknown; valid: {', '.join(FAVORS)}"
    )
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
  fields = dict(document.fields)
  label = fields.pop("charset", "")
  decoded = charset.page(html, label if isinstance(label, str) else "")
  if decoded is not None:
    html = decoded.encode(errors="replace")
  found = _ask(settings, html)
  if found is None:
    return Dropped("unparsable")
  title, text = found
  if not text.strip():
    return Dropped("no_main_text")
  if title:
    fields["title"] = title
  return document._replace(text=text, fields=fields, html=b"")


# Idle parser processes, as many as were ever busy at the same time.
_IDLE: list[subprocess.Popen] = []


def _ask(settings: Settings, html: bytes) -> tuple[str, str] | None:
  """(title, text) of a page, or None if the parser died."""
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
    # -P: modules beside the script must not shadow standard ones.
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
  """Forgets the parsers after a fork: they belong to the parent process."""
  for parser in _IDLE:
    parser.returncode = 0
  _IDLE.clear()


atexit.register(_end_all)
os.register_at_fork(after_in_child=_forget)
