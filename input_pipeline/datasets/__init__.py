"""Small public data sets: where their files are, and what is made of them.

A data set is a file in this folder: sst2.py holds the function `sst2`, which
returns a Dataset, and `python -m input_pipeline.fetch sst2` writes the folder
data/sst2, which the configs read.
"""

import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

# What `write` gets: {file name: its path}; and gives: (path below the data
# set's folder, content) of each file.
Files = Mapping[str, pathlib.Path]
Written = Iterator[tuple[str, bytes]]


class File(NamedTuple):
  """A file of a data set as it is published.

  address: where it is downloaded from; "" for a copy in another form, which
    only --from can provide.
  local: its path below the folder given by --from.
  size: in bytes; None if unknown.
  sha256: in hexadecimal digits; None if unknown, so that it is not verified.
  """

  address: str
  local: str
  size: int | None = None
  sha256: str | None = None

  @property
  def name(self) -> str:
    """The last part of its path."""
    return self.local.rpartition("/")[2]


class Dataset(NamedTuple):
  """A public data set.

  what: one line: the content, its size, and the publication.
  licence: of the data, and of the repository where it differs.
  origin: a page that describes it.
  digests: where the SHA-256 of the files was obtained.
  files: what is downloaded.
  holds: the entries of the folder that is written.
  write: makes them of the files.
  configs: the names of the configs that read the folder.
  copies: what --from may provide in place of `files`.
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
