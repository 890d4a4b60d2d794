"""The title and the main text of one page; or of many, as a process.

As a process it reads pages from its input and writes the answers to its output.
A page that takes too long or crashes the parser ends this process only; inside
the main process C code could not be interrupted.
"""

import contextlib
import functools
import struct
import sys
from typing import Any, BinaryIO, NamedTuple

# Before each page and each answer: sizes of what follows.
PAGE = struct.Struct("<4BQ")
ANSWER = struct.Struct("<2Q")
FAVORS = ("balanced", "precision", "recall")

# Limits for one page; ordinary pages take at most a tenth.
_CPU_SECONDS = 60
_MEMORY = 2**32
_LONGEST_TITLE = 1000


class Settings(NamedTuple):
  """What counts as the main text of a page.

  favor: "precision" takes less where in doubt, "recall" more.
  fallback: whether to try other extractors if the first finds little.
  comments: those of readers are kept.
  tables: their texts are kept.
  """

  favor: str = "balanced"
  fallback: bool = False
  comments: bool = False
  tables: bool = True


def decode(html: bytes) -> str:
  """The text of a page in UTF-8 or, if nothing is known, by a guess.

  The stage converts every page whose encoding is declared, to UTF-8.
  """
  try:
    return html.decode()
  except UnicodeDecodeError:
    pass
  from trafilatura.utils import decode_file

  return decode_file(html)


def main_text(html: bytes, settings: Settings = Settings()) -> tuple[str, str]:
  """Returns (title, main text) of a page; "" for one that it lacks."""
  import trafilatura
  from trafilatura.metadata import extract_title
  from trafilatura.utils import load_html

  tree = load_html(decode(html))
  if tree is None:
    return "", ""
  title = (extract_title(tree) or "")[:_LONGEST_TITLE]
  text = trafilatura.extract(tree, options=_options(settings)) or ""
  return title, text


@functools.cache
def _options(settings: Settings) -> Any:
  """Trafilatura's options; cached, as reading its defaults is slow."""
  from trafilatura.settings import Extractor

  return Extractor(
    output_format="txt",
    fast=not settings.fallback,
    precision=settings.favor == "precision",
    recall=settings.favor == "recall",
    comments=settings.comments,
    tables=settings.tables,
  )


def _serve(pages: BinaryIO, answers: BinaryIO) -> None:
  import logging
  import resource
  import signal

  import trafilatura.metadata  # noqa: F401  (no part of the first page's time)

  logging.disable(logging.CRITICAL)
  hard = resource.getrlimit(resource.RLIMIT_AS)[1]
  if hard == resource.RLIM_INFINITY or hard > _MEMORY:
    with contextlib.suppress(ValueError, OSError):  # Not every system can.
      resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, hard))
  while header := pages.read(PAGE.size):
    favor, fallback, comments, tables, size = PAGE.unpack(header)
    settings = Settings(
      FAVORS[favor], bool(fallback), bool(comments), bool(tables)
    )
    html = pages.read(size)
    # The kernel ends the process in any state.
    signal.setitimer(signal.ITIMER_VIRTUAL, _CPU_SECONDS)
    title, text = (
      part.encode(errors="replace") for part in main_text(html, settings)
    )
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    answers.write(ANSWER.pack(len(title), len(text)) + title + text)
    answers.flush()


if __name__ == "__main__":
  _serve(sys.stdin.buffer, sys.stdout.buffer)
