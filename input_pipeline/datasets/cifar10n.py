"""CIFAR-10N: 10,000 images of CIFAR-10 with labels that people gave them."""

import csv
import io

from input_pipeline.datasets import Dataset, File, Files, Written
from input_pipeline.datasets.parts import archives, cifar, github

_IMAGES = 10_000
_TESTS = 200  # of each class
_COPIES = {
  "train": "train_first10000.zip",
  "test": "test_2000.zip",
  "labels": "train_first10000_labels.csv",
}
(_LABELS,) = github.files(
  "UCSC-REAL/cifar-10-100n",
  "49df7d8a69e355470c77c1c2f2424916325a394b",
  "img_cifar10_and_cifar10n",
  {
    "data/CIFAR-10_human.pt": (
      2_401_007,
      "873e69c39cb9b5e97fb6bae2d60bb59b38a5cbc31d2b868f7903dcb2b9dd2310",
    ),
  },
)


def cifar10n() -> Dataset:
  """The data set: the first 10,000 training images, 200 tests of each class.

  The folder of an image is its clean label; labels.csv has all labels of the
  training images.
  """
  return Dataset(
    what="10,000 images of CIFAR-10 with human labels (Wei et al. 2022)",
    licence=f"images: {cifar.LICENCE}; labels: CC BY-NC 4.0",
    origin="https://github.com/UCSC-REAL/cifar-10-100n",
    digests="images: TensorFlow Datasets' record; labels: computed from a copy",
    files=(cifar.BINARY, _LABELS),
    copies=tuple(
      File("", f"img_cifar10_and_cifar10n/{name}") for name in _COPIES.values()
    ),
    holds=("labels.csv", "test", "train"),
    write=_write,
    configs=("dino_cifar10", "mae_cifar10", "simclr_cifar10"),
  )


def _write(files: Files) -> Written:
  """SPLIT/CLASS/NUMBER.png or .jpg, and labels.csv."""
  if _LABELS.name in files:
    yield from _published(files)
    return
  for split in ("train", "test"):
    yield from archives.members(
      files[_COPIES[split]], rf"{split}/[a-z]+/[0-9]+\.jpg"
    )
  yield "labels.csv", files[_COPIES["labels"]].read_bytes()


def _published(files: Files) -> Written:
  labels = cifar.human_labels(files[_LABELS.name])
  table = io.StringIO()
  rows = csv.writer(table, lineterminator="\n")
  rows.writerow(["official_index", "path", *cifar.LABELS])
  index = 0
  for name, content in cifar.images(
    files[cifar.BINARY.name], train=_IMAGES, test=_TESTS
  ):
    if name.startswith("train/"):
      given = [int(labels[column][index]) for column in cifar.LABELS]
      if f"/{cifar.CLASSES[given[0]]}/" not in name:
        raise ValueError(f"{_LABELS.name}: label {index} is not that of {name}")
      rows.writerow([index, name, *given])
      index += 1
    yield name, content
  yield "labels.csv", table.getvalue().encode()
