"""The source files of Python's standard library, which every machine has."""

import functools
import os
import sysconfig
from collections.abc import Iterator

from input_pipeline.bad_records import Policy
from input_pipeline.document import Bad, Document
from input_pipeline.reading.formats import text
from input_pipeline.reading.utf8 import read_text

_NOT_LIBRARY = {
  "__pycache__",
  "dist-packages",
  "idle_test",
  "site-packages",
  "test",
  "tests",
}


def files() -> list[str]:
  """The sorted files of stdlib:."""
  paths = []
  for folder, folders, found in os.walk(sysconfig.get_paths()["stdlib"]):
    folders[:] = [f for f in folders if f not in _NOT_LIBRARY]
    for file in found:
      path = os.path.join(folder, file)
      if file.endswith(".py") and os.path.isfile(path) and _is_utf8(path):
        paths.append(path)
  if not paths:
    raise ValueError("stdlib: holds no source file that can be read")
  return sorted(paths)


def root() -> str:
  """The folder of the standard library, with a slash at its end."""
  return os.path.join(sysconfig.get_paths()["stdlib"], "")


def read(
  path: str, *, text_key: str, policy: Policy, name: str = ""
) -> Iterator[Document | Bad]:
  """The file as one document, as `text:` reads it."""
  return text.read(path, text_key=text_key, policy=policy, name=name)


@functools.cache
def _is_utf8(path: str) -> bool:
  try:
    read_text(path, Policy())
  except ValueError:
    return False
  return True
