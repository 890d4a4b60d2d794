"""The id of a run at a tracking service, stored in a file of the workdir."""

import pathlib
import re

from common import bounded_file, files

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)


def read(workdir: str, service: str) -> str | None:
  """Returns the id in WORKDIR/<service>_run_id, or None if it is missing.

  Raises:
    ValueError: the file does not contain an id.
  """
  path = pathlib.Path(workdir) / f"{service}_run_id"
  if not path.exists():
    return None
  found = bounded_file.read(path, 100).decode("ascii", "replace").strip()
  if not _ID.fullmatch(found):
    raise ValueError(f"{path} does not contain the id of a run: remove it")
  return found


def write(workdir: str, service: str, run_id: str) -> None:
  """Writes WORKDIR/<service>_run_id."""
  path = str(pathlib.Path(workdir) / f"{service}_run_id")
  files.write_atomically(path, [f"{run_id}\n".encode()])
