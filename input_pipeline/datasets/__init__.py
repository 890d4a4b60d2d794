"""Small public data sets: the addresses of their files and how to convert them.

A data set is a file in this folder: sst2.py defines the function `sst2`, which
returns a Dataset. `python -m input_pipeline.fetch sst2` writes the folder
data/sst2, which configs read.
"""

import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

# The argument of `write`, {file name: path}, and its result, (path below the
# data set's folder, content) of each file.
Files = Mapping[str, pathlib.Path]
Written = Iterator[tuple[str, bytes]]


class File(NamedTuple):
  """A published file of a data set.

  address: the URL of the download; "" for a copy in another format, which only
    --from can provide.
  local: its path below the folder given by --from.
  size: the size in bytes; None if unknown.
  sha256: the SHA-256 in hexadecimal digits; None if unknown, and then not
    verified.
  """

  address: str
  local: str
  size: int | None = None
  sha256: str | None = None

  @property
  def name(self) -> str:
    """The last part of `local`."""
    return self.local.rpartition("/")[2]


class Dataset(NamedTuple):
  """A public data set.

  what: one line: the content, its size, and the publication.
  licence: the license of the data, and that of the repository if it differs.
  origin: a page that describes the data set.
  digests: the source of the SHA-256 digests of the files.
  files: the files that are downloaded.
  holds: the entries of the folder that is written.
  write: converts the files to these entries.
  configs: the names of the configs that read the folder.
  copies: the files that --from may provide instead of `files`.
  folder: below that of --from, which may hold a copy of all that `holds` names;
    it is taken as it is where there are no `files`. "" for none.
  """

  what: str
  licence: str
  origin: str
  digests: str
  files: tuple[File, ...]
  holds: tuple[str, ...]
  write: Callable[[Files], Written]
  configs: tuple[str, ...]
  copies: tuple[File, ...] = ()
  folder: str = ""
