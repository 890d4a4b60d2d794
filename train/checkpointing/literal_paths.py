"""Makes Orbax read the path of a checkpoint literally.

Orbax finds the parts of a checkpoint by `path.glob(pattern)`, and etils.epath
interprets the whole joined path as a pattern. In a folder named "run [v2]" the
parts are then not found, and arrays are lost without an error.
"""

import glob

from etils.epath import gpath


def install() -> None:
  """Replaces epath's `glob` by one that matches only below the path."""
  gpath.PosixGPath.glob = _glob


def _glob(self, pattern):
  """Yields the paths that match `pattern` below `self`, in no fixed order."""
  where = self._path_str
  if self._uri_scheme is None:
    where = glob.escape(where)
  for found in self._backend.glob(self._PATH.join(where, pattern)):
    yield self._new(found)
