"""Files of a public GitHub repository at a fixed commit."""

import hashlib
import pathlib
import urllib.parse
from collections.abc import Mapping

from input_pipeline.datasets import File
from input_pipeline.datasets.parts import archives

# The SHA-256 of such a file is that of a copy made at the same commit.
DIGESTS = "computed from a copy of the files at this commit"


def files(
  repository: str,
  commit: str,
  local: str,
  table: dict[str, tuple[int, str]],
) -> tuple[File, ...]:
  """The files of a repository, which do not change at a commit.

  Args:
    repository: OWNER/NAME.
    commit: 40 hexadecimal digits.
    local: the folder below --from that holds copies of them.
    table: {path in the repository: (bytes, SHA-256)}.
  """
  start = f"https://raw.githubusercontent.com/{repository}/{commit}"
  return tuple(
    File(
      address=f"{start}/{urllib.parse.quote(path)}",
      local=f"{local}/{path.rpartition('/')[2]}",
      size=size,
      sha256=sha256,
    )
    for path, (size, sha256) in table.items()
  )


def archive(repository: str, commit: str, local: str) -> File:
  """The archive of a whole repository at a commit.

  Its digest is not known, because GitHub compresses it when it is asked; see
  `members`.

  Args:
    repository: OWNER/NAME.
    commit: 40 hexadecimal digits.
    local: the folder below --from that holds a copy of it.
  """
  address = f"https://codeload.github.com/{repository}/tar.gz/{commit}"
  return File(address, f"{local}/{commit}.tar.gz")


def members(path: pathlib.Path, wanted: str, digest: str) -> dict[str, bytes]:
  """{path in the repository: content} of files of an archive, by their names.

  Args:
    path: of the archive.
    wanted: a pattern that paths match.
    digest: the SHA-256 of a line "PATH SHA-256" of each file.

  Raises:
    ValueError: the files are others.
  """
  found = {
    name.partition("/")[2]: content
    for name, content in archives.members(path, rf"[^/]+/(?:{wanted})")
  }
  found = dict(sorted(found.items()))
  if digest_of(found) != digest:
    raise ValueError(f"{path}: its files are not those of the commit")
  return found


def digest_of(found: Mapping[str, bytes]) -> str:
  """The SHA-256 of a line "PATH SHA-256" of each file."""
  lines = (f"{k} {hashlib.sha256(v).hexdigest()}\n" for k, v in found.items())
  return hashlib.sha256("".join(lines).encode()).hexdigest()
