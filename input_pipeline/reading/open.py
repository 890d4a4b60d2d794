"""Raw files by URI: which they are, and how a scheme's are read.

Schemes: warc:, wet:, html:, text:, jsonl:, csv: and parquet:, each with a GLOB
in which ** spans folders, and stdlib:. A file named *.paths or *.paths.gz is a
list of files, as Common Crawl publishes them:

  warc:crawl/warc.paths.gz?base=DIR_OR_URL

Its lines are joined to the base: a folder, or an http(s) address; without one,
the folder in which the list is.
"""

import difflib
import functools
import importlib
import os
import posixpath
import re
import sysconfig
from collections.abc import Callable, Iterator

from input_pipeline.bad_records import Policy
from input_pipeline.preparation.document import Bad, Document
from input_pipeline.reading import remote
from input_pipeline.reading.streams import lines, opened
from input_pipeline.source_text import find_files, stdlib_files

_SCHEMES = {
  "warc": "warc",
  "wet": "wet",
  "html": "html",
  "text": "text",
  "jsonl": "jsonl",
  "csv": "csv",
  "parquet": "parquet",
  "stdlib": "text",
}
_LIST = re.compile(r"(?P<list>.+\.paths(?:\.gz)?)(?:\?base=(?P<base>.*))?")
_LONGEST_PATH = 4096
# Common Crawl's lists have 100,000 lines.
_MOST_PATHS = 10_000_000


def files(uri: str) -> list[str]:
  """The sorted files of a URI; those of a list in its order.

  Raises:
    ValueError: the scheme is unknown, no file matches, or a list is malformed;
      one line that names it.
  """
  scheme, rest = _parts(uri)
  if scheme == "stdlib":
    return stdlib_files()
  listed = _LIST.fullmatch(rest)
  if not listed:
    return find_files(rest, uri)
  base = _base(listed)
  found = []
  for path in find_files(listed["list"], uri):
    found += [_join(base, entry, path) for entry in _entries(path)]
  if not found:
    raise ValueError(f"{uri} lists no file")
  return found


def reader(
  uri: str, text_key: str, policy: Policy = Policy()
) -> Callable[[str], Iterator[Document | Bad]]:
  """(one of the URI's files) -> its documents, and what is bad in it.

  A document's id begins with the file's path from the folder that the glob
  names without wildcards, or from the base, so that it is the same wherever
  the data lies. It can be pickled.

  Args:
    uri: as for `files`.
    text_key: the field that is the text, where records have fields.
    policy: its `max_record_bytes` bounds what is held in memory.
  """
  scheme, rest = _parts(uri)
  return functools.partial(
    _read, _SCHEMES[scheme], _root(scheme, rest), text_key, policy
  )


def _read(
  module: str, root: str, text_key: str, policy: Policy, path: str
) -> Iterator[Document | Bad]:
  read = importlib.import_module(f"input_pipeline.reading.{module}").read
  name = path
  if root and path.startswith(root):
    name = path[len(root) :].replace(os.sep, "/")
  return read(path, text_key=text_key, policy=policy, name=name)


def _parts(uri: str) -> tuple[str, str]:
  scheme, colon, rest = uri.partition(":")
  if not colon or scheme not in _SCHEMES:
    near = difflib.get_close_matches(scheme, _SCHEMES, 1)
    hint = f"did you mean {near[0]}:? " if near else ""
    raise ValueError(
      f"source {uri!r}: unknown scheme {scheme!r}; {hint}"
      f"valid: {', '.join(s + ':' for s in _SCHEMES)}"
    )
  return scheme, rest


def _root(scheme: str, rest: str) -> str:
  """What the paths of a URI's files begin with, a slash at its end."""
  if scheme == "stdlib":
    return os.path.join(sysconfig.get_paths()["stdlib"], "")
  listed = _LIST.fullmatch(rest)
  if listed:
    base = _base(listed)
    return f"{base}/" if remote.is_remote(base) else os.path.join(base, "")
  parts = os.path.expanduser(rest).split(os.sep)
  fixed = 0
  while fixed < len(parts) - 1 and not re.search(r"[*?[]", parts[fixed]):
    fixed += 1
  folder = os.sep.join(parts[:fixed])
  if fixed and not folder:
    folder = os.sep
  return os.path.join(os.path.abspath(folder), "")


def _base(listed: re.Match) -> str:
  base = listed["base"]
  if base and remote.is_remote(base):
    return base.rstrip("/")
  if not base:
    base = os.path.dirname(listed["list"])
  return os.path.abspath(os.path.expanduser(base))


def _entries(path: str) -> Iterator[str]:
  with opened(path) as stream:
    for line in lines(stream, _LONGEST_PATH):
      name = f"{path}:{line.number}"
      try:
        entry = (line.content or b"").decode().strip()
      except UnicodeDecodeError:
        entry = ""
      if not entry or "\0" in entry or line.number > _MOST_PATHS:
        raise ValueError(f"{name}: not a path")
      yield entry


def _join(base: str, entry: str, path: str) -> str:
  """An entry of a list below its base; ValueError where it leads out of it."""
  parts = entry.split("/")
  if ".." in parts or entry.startswith("/") or ":" in parts[0]:
    raise ValueError(
      f"{path}: the entry {entry!r} is not a path below its base"
    )
  if remote.is_remote(base):
    return f"{base}/{entry}"
  return os.path.join(base, *posixpath.normpath(entry).split("/"))
