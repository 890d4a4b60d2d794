"""Resolves the URI of raw data to files and to their reader.

Schemes: warc:, wet:, html:, text:, jsonl:, csv: and parquet:, each with a GLOB
in which ** spans folders, and stdlib:. A file named *.paths or *.paths.gz is a
list of files (see path_list).
"""

import functools
import importlib
import importlib.util
import os
import re
import sysconfig
from collections.abc import Callable, Iterator

from common.names import scheme_of
from input_pipeline.bad_records import Policy
from input_pipeline.document import Bad, Document
from input_pipeline.reading import path_list, stdlib
from input_pipeline.reading.paths import find_files
from input_pipeline.reading.remote import is_remote

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
# The optional library that a scheme needs.
_NEEDS = {"warc": "warcio", "wet": "warcio", "parquet": "pyarrow"}


def files(uri: str) -> list[str]:
  """The sorted files of a URI; files from a list keep its order.

  Raises:
    ValueError: the scheme is unknown, no file matches, a list is malformed, or
      a library is not installed.
  """
  scheme, rest = scheme_of(uri, _SCHEMES)
  if scheme == "stdlib":
    return stdlib.files()
  found = find_files(rest, uri, remote=True)
  needs = [_NEEDS[scheme]] if scheme in _NEEDS else []
  if any(path.endswith(".zst") for path in found):
    needs.append("zstandard")
  for module in needs:
    if importlib.util.find_spec(module) is None:
      raise ValueError(
        f"{uri} needs {module}, which is not installed: "
        "pip install -e '.[clean]'"
      )
  return found


def reader(
  uri: str, text_key: str, policy: Policy = Policy()
) -> Callable[[str], Iterator[Document | Bad]]:
  """A function from a file of the URI to its documents and bad records.

  The id of a document begins with the file's path relative to the part of the
  glob without wildcards, or to the base of a list, so that it does not depend
  on where the data is stored. The function can be pickled.

  Args:
    uri: as for `files`.
    text_key: the field with the text, for records with fields.
    policy: its `max_record_bytes` limits what is held in memory.
  """
  scheme, rest = scheme_of(uri, _SCHEMES)
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


def _root(scheme: str, rest: str) -> str:
  """The common beginning of the paths of a URI's files, with a slash."""
  if scheme == "stdlib":
    return os.path.join(sysconfig.get_paths()["stdlib"], "")
  listed = path_list.split(rest)
  if listed:
    _, base = listed
    return f"{base}/" if is_remote(base) else os.path.join(base, "")
  if is_remote(rest):
    return re.split(r"[*?[]", rest)[0].rpartition("/")[0] + "/"
  parts = os.path.expanduser(rest).split(os.sep)
  fixed = 0
  while fixed < len(parts) - 1 and not re.search(r"[*?[]", parts[fixed]):
    fixed += 1
  folder = os.sep.join(parts[:fixed])
  if fixed and not folder:
    folder = os.sep
  return os.path.join(os.path.abspath(folder), "")
