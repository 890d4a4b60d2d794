"""images:GLOB: images without labels."""

import glob
import os
from collections.abc import Callable

import numpy as np

from input_pipeline.bad_records import Policy
from input_pipeline.reading import endings
from input_pipeline.reading.columns import strings
from input_pipeline.reading.paths import find_files
from input_pipeline.sources import Source
from input_pipeline.sources.folder import image_file
from input_pipeline.sources.parts import class_folders


def images(pattern: str, policy: Policy = Policy()) -> dict[str, Source]:
  """images:GLOB: images without labels, such as those to classify.

  {"image": the file's bytes}, sorted by path. GLOB is a pattern or a folder,
  all images below which are read. The formats, and what becomes of files of
  other formats, are as in folder:DIR.
  """

  def reader(paths: list[str], labels: np.ndarray) -> Callable:
    del labels

    def read(indices: np.ndarray) -> dict[str, np.ndarray]:
      return {"image": strings([image_file(paths[i], policy) for i in indices])}

    return read

  uri, folder = f"images:{pattern}", os.path.expanduser(pattern)
  paths = [folder] if os.path.isdir(folder) else find_files(pattern, uri)
  suffixes = endings.images()
  found = class_folders.unlabeled(uri, paths, suffixes, policy, reader)
  notes = (found.note, _folders(folder))
  return {"all": found._replace(note="; ".join(n for n in notes if n))}


def _folders(pattern: str) -> str:
  """A note on folders that a pattern matches, whose files are not read."""
  if "**" in pattern or os.path.isdir(pattern):
    return ""
  found = sorted(filter(os.path.isdir, glob.glob(pattern)))
  if not found:
    return ""
  more = f" ({len(found):,} such folders)" if len(found) > 1 else ""
  return f"{found[0]} is a folder, whose files are not read{more}"
