"""folder:DIR: labelled images in a folder per class."""

from collections.abc import Callable

import numpy as np

from input_pipeline.bad_records import Policy
from input_pipeline.reading import bounded, endings, image_size
from input_pipeline.sources import Source
from input_pipeline.sources.parts import class_folders


def folder(root: str, policy: Policy = Policy()) -> dict[str, Source]:
  """folder:DIR: a folder of images per class; classes are sorted by name.

  {"image": the file's bytes, "label": int32 []}. The images are JPEG, PNG, BMP,
  GIF, WebP, TIFF and AVIF files, which the op `decode` decodes. Examples are in
  a fixed shuffled order, so that a slice of a split holds every class.

  If every folder in DIR has the name of a split (train, validation or val,
  test), these are the splits, and the class folders lie in them. A single
  class all of whose images lie in folders below it is an error.

  A note counts the files of other formats. If they are more than
  `max_bad_share` of all files, it is an error. Hidden files, README, LICENSE
  and tables or texts beside the images do not count. A folder that cannot be
  read is an error; under "skip" it is one bad record. In a prediction the
  folders are no classes: all images in DIR and below are read, sorted by path.
  """

  def reader(paths: list[str], labels: np.ndarray) -> Callable:
    def read(indices: np.ndarray) -> dict[str, np.ndarray]:
      images = np.empty(len(indices), object)
      for i, index in enumerate(indices):
        images[i] = image_file(paths[index], policy)
      return {"image": images, "label": labels[indices]}

    return read

  uri, suffixes = f"folder:{root}", endings.images()
  return class_folders.sources(uri, root, suffixes, policy, reader)


def image_file(path: str, policy: Policy) -> bytes:
  """Returns an image file's bytes; ValueError if it is broken or too large."""
  content = bounded.read_file(path, policy)
  image_size.check_image(content, path, policy)
  return content
