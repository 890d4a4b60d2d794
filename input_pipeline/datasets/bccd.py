"""BCCD: blood cells in boxes, in the layout of Pascal VOC."""

from input_pipeline.datasets import Dataset, Files, Written
from input_pipeline.datasets.parts import github

_ARCHIVE = github.archive(
  "Shenggan/BCCD_Dataset",
  "d272fb14cdff6e473fafeeeba32aba5f560e9e43",
  "det_bccd",
)
_WANTED = (
  r"BCCD/(?:JPEGImages/.*\.jpg|Annotations/.*\.xml|ImageSets/Main/.*\.txt)"
)
_CONTENT = "fe5af2fe74301321c9973499813e20e6f22aaa06ea9132564eecadbfb07dc548"


def bccd() -> Dataset:
  """The data set, in the official splits."""
  return Dataset(
    what="364 pictures of 4,888 blood cells in boxes (Shenggan 2017)",
    licence="MIT",
    origin="https://github.com/Shenggan/BCCD_Dataset",
    digests="of all files together, computed from a copy at this commit",
    files=(_ARCHIVE,),
    holds=("Annotations", "ImageSets", "JPEGImages"),
    write=_write,
    configs=("boxes_bccd", "detr_bccd", "faster_rcnn_bccd", "yolo_bccd"),
    folder="det_bccd",
  )


def _write(files: Files) -> Written:
  """JPEGImages/*.jpg, Annotations/*.xml and ImageSets/Main/SPLIT.txt."""
  found = github.members(files[_ARCHIVE.name], _WANTED, _CONTENT)
  for name, content in found.items():
    yield name.partition("/")[2], content
