"""Reads lists of files as Common Crawl publishes them: *.paths, *.paths.gz.

  warc:crawl/warc.paths.gz?base=DIR_OR_URL

Each line is a path below the base, which is a folder or an http(s) address. By
default it is the folder of the list.
"""

import os
import posixpath
import re
from collections.abc import Iterator

from input_pipeline.reading import remote
from input_pipeline.reading.streams import lines, opened

_LIST = re.compile(r"(?P<glob>.+\.paths(?:\.gz)?)(?:\?base=(?P<base>.*))?")
_LONGEST_PATH = 4096
# Common Crawl's lists have 100,000 lines.
_MOST_PATHS = 10_000_000


def split(pattern: str) -> tuple[str, str] | None:
  """(glob of the lists, base without a slash); None for another pattern."""
  found = _LIST.fullmatch(pattern)
  if not found:
    return None
  base = found["base"] or os.path.dirname(found["glob"])
  if remote.is_remote(base):
    return found["glob"], base.rstrip("/")
  return found["glob"], os.path.abspath(os.path.expanduser(base))


def read(path: str, base: str) -> Iterator[str]:
  """Yields the files that a list names, in its order.

  Raises:
    ValueError: the list cannot be read, or a line leads out of the base.
  """
  with opened(path) as stream:
    for line in lines(stream, _LONGEST_PATH):
      name = f"{path}:{line.number}"
      try:
        entry = (line.content or b"").decode().strip()
      except UnicodeDecodeError:
        entry = ""
      if not entry or "\0" in entry or line.number > _MOST_PATHS:
        raise ValueError(f"{name}: not a path")
      parts = entry.split("/")
      if ".." in parts or not parts[0] or ":" in parts[0]:
        raise ValueError(f"{name}: {entry!r} is not a path below its base")
      entry = posixpath.normpath(entry)
      if remote.is_remote(base):
        yield f"{base}/{entry}"
      else:
        yield os.path.join(base, *entry.split("/"))
