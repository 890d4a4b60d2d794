"""Resolves the URI of raw data to files and to their reader.

A URI is SCHEME:GLOB, where ** in the glob spans folders, or stdlib:. A scheme
is the name of a file in reading/formats/. A file named *.paths or *.paths.gz
is a list of files (see path_list).
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
from input_pipeline.reading import path_list, text_options
from input_pipeline.reading.paths import find_files, literal_folder
from input_pipeline.reading.remote import is_remote
from input_pipeline.reading.text_options import Options

_FORMATS = "input_pipeline.reading.formats"


def files(uri: str) -> list[str]:
  """The sorted files of a URI; files from a list keep its order.

  Raises:
    ValueError: the scheme is unknown, no file matches, a list is malformed, or
      a library is not installed.
  """
  module, rest, _ = _format(uri)
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
  """A function from a file of the URI to its documents and bad records.

  The id of a document begins with the file's path relative to the part of the
  glob without wildcards, or to the base of a list, so that it does not depend
  on where the data is stored. The function can be pickled.

  Args:
    uri: as for `files`.
    text_key: the field with the text, for records with fields.
    policy: its `max_record_bytes` limits what is held in memory.
  """
  module, rest, options = _format(uri)
  root = module.root() if hasattr(module, "root") else _root(rest)
  return functools.partial(
    _read, module.__name__, root, text_key, policy, options
  )


def _format(uri: str) -> tuple[ModuleType, str, Options]:
  """The module that reads a URI's scheme, the pattern, and the settings."""
  formats = names.discover(_FORMATS)
  scheme, rest = names.scheme_of(uri, formats)
  module = importlib.import_module(formats[scheme])
  valid = getattr(module, "SETTINGS", ())
  return module, *text_options.split(rest, scheme, valid)


def _read(
  module: str,
  root: str,
  text_key: str,
  policy: Policy,
  options: Options,
  path: str,
) -> Iterator[Document | Bad]:
  read = importlib.import_module(module).read
  if options != Options():
    read = functools.partial(read, options=options)
  name = path
  if root and path.startswith(root):
    name = path[len(root) :].replace(os.sep, "/")
  return read(path, text_key=text_key, policy=policy, name=name)


def _root(rest: str) -> str:
  """The common beginning of the paths of a URI's files, with a slash."""
  listed = path_list.split(rest)
  if listed:
    _, base = listed
    return f"{base}/" if is_remote(base) else os.path.join(base, "")
  if is_remote(rest):
    return re.split(r"[*?[]", rest)[0].rpartition("/")[0] + "/"
  return os.path.join(literal_folder(rest), "")
