"""folder:DIR: labelled images in a folder per class."""

import numpy as np

from input_pipeline.bad_records import Policy
from input_pipeline.reading import bounded, image_size
from input_pipeline.reading.paths import fingerprint
from input_pipeline.sources import Source
from input_pipeline.sources.parts.class_folders import class_folders

_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif")


def folder(root: str, policy: Policy = Policy()) -> dict[str, Source]:
  """folder:DIR: a folder of images per class; classes are sorted by name.

  If DIR/train exists, DIR/train, DIR/validation (or val) and DIR/test are the
  splits. {"image": the file's bytes, "label": int32 []}. Examples are in a
  fixed shuffled order, so that a slice of a split holds every class. A folder
  that cannot be read is an error; under "skip" it is one bad record.
  """
  classes, found = class_folders(f"folder:{root}", root, _SUFFIXES, policy)
  return {
    name: _folder(files, classes, policy) for name, files in found.items()
  }


def _folder(
  files: list[tuple[str, int]], classes: list[str], policy: Policy
) -> Source:
  paths = [path for path, _ in files]
  labels = np.array([label for _, label in files], np.int32)

  def read(indices: np.ndarray) -> dict[str, np.ndarray]:
    images = np.empty(len(indices), object)
    for i, index in enumerate(indices):
      images[i] = bounded.read_file(paths[index], policy)
      image_size.check_image(images[i], paths[index], policy)
    return {"image": images, "label": labels[indices]}

  return Source(
    len(paths),
    read,
    lambda index: paths[index],
    num_classes=len(classes),
    class_names=tuple(classes),
    fingerprint=fingerprint(paths),
  )
