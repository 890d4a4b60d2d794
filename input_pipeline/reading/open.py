"""Raw files by URI: which files it names, and how they are read.

A URI is SCHEME:GLOB, where ** in the glob spans folders, or stdlib:. A scheme
is the name of a file in reading/formats/. A file named *.paths or *.paths.gz
is a list of files; see path_list.
"""

import functools
import importlib
import importlib.util
import os
import re
from collections.abc import Callable, Iterator
from types import ModuleType

from common import names
from input_pipeline.bad_records import Policy
from input_pipeline.document import Bad, Document
from input_pipeline.reading import path_list
from input_pipeline.reading.paths import find_files
from input_pipeline.reading.remote import is_remote

_FORMATS = "input_pipeline.reading.formats"


def files(uri: str) -> list[str]:
  """The sorted files of a URI; those of a list in its order.

  Raises:
    ValueError: the scheme is unknown, no file matches, a list is malformed, or
      a library is not installed; one line that names it.
  """
  module, rest = _format(uri)
  if hasattr(module, "files"):
    return module.files()
  found = find_files(rest, uri, remote=True)
  needs = [module.NEEDS] if hasattr(module, "NEEDS") else []
  if any(path.endswith(".zst") for path in found):
    needs.append("zstandard")
  for library in needs:
    if importlib.util.find_spec(library) is None:
      raise ValueError(
        f"{uri} needs {library}, which is not installed: "
        "pip install -e '.[clean]'"
      )
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
  module, rest = _format(uri)
  root = module.root() if hasattr(module, "root") else _root(rest)
  return functools.partial(_read, module.__name__, root, text_key, policy)


def _format(uri: str) -> tuple[ModuleType, str]:
  """The module that reads a URI's scheme, and what follows the scheme."""
  formats = names.discover(_FORMATS)
  scheme, rest = names.scheme_of(uri, formats)
  return importlib.import_module(formats[scheme]), rest


def _read(
  module: str, root: str, text_key: str, policy: Policy, path: str
) -> Iterator[Document | Bad]:
  read = importlib.import_module(module).read
  name = path
  if root and path.startswith(root):
    name = path[len(root) :].replace(os.sep, "/")
  return read(path, text_key=text_key, policy=policy, name=name)


def _root(rest: str) -> str:
  """What the paths of a URI's files begin with, a slash at its end."""
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
