"""Files of a public GitHub repository at a fixed commit."""

import urllib.parse

from input_pipeline.datasets import File

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
