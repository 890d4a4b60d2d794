"""Paths of data sets that input_pipeline.fetch knows."""

import os

from common import names

_DATASETS = "input_pipeline.datasets"


def hint(path: str) -> str:
  """The command that fetches a path in a missing folder data/NAME, or "".

  It begins with "; ", to end an error with.
  """
  path = path.partition("?")[0]  # without settings
  top, _, inside = os.path.normpath(path).partition(os.sep)
  name = inside.partition(os.sep)[0]
  if top != "data" or name not in names.discover(_DATASETS):
    return ""
  if os.path.lexists(os.path.join(top, name)):
    return ""
  return f"; get it with: python -m input_pipeline.fetch {name}"
