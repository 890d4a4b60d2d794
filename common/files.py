"""Atomic writes of local files, and the cache folder."""

import contextlib
import os
import uuid
from collections.abc import Iterable

from common import storage


def cache_folder(cache_dir: str | None = None) -> str:
  """Returns `cache_dir`, or by default $TESSERA_CACHE or ~/.cache/tessera."""
  cache_dir = cache_dir or os.environ.get("TESSERA_CACHE")
  return os.path.expanduser(cache_dir or "~/.cache/tessera")


def write_atomically(path: str, chunks: Iterable[bytes]) -> None:
  """Writes a file atomically: a kill leaves the old file or the new one.

  Raises:
    UserError: the path has a scheme, such as gs://.
  """
  storage.check_local("path", path)
  folder = os.path.dirname(path)
  os.makedirs(folder, exist_ok=True)
  # Hosts that share the folder may write the same file at the same time.
  temporary = f"{path}.{uuid.uuid4().hex}.tmp"
  try:
    with open(temporary, "xb") as file:
      for chunk in chunks:
        file.write(chunk)
    os.replace(temporary, path)
  except BaseException:
    with contextlib.suppress(FileNotFoundError):  # it could not be created
      os.unlink(temporary)
    raise
