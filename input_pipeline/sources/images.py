"""images:GLOB: images without labels."""

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
  return {"all": class_folders.unlabeled(uri, paths, suffixes, policy, reader)}
