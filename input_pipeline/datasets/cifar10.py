"""CIFAR-10: small photographs of ten classes, as a folder a class."""

from input_pipeline.datasets import Dataset, File, Files, Written
from input_pipeline.datasets.parts import archives, cifar


def cifar10() -> Dataset:
  """The data set: all 60,000 images, as PNG; of a copy in zips, as they are."""
  return Dataset(
    what="60,000 photographs, 32 x 32, ten classes (Krizhevsky 2009)",
    licence=cifar.LICENCE,
    origin="https://www.cs.toronto.edu/~kriz/cifar.html",
    digests="TensorFlow Datasets' record",
    files=(cifar.BINARY,),
    copies=(
      File("", "img_cifar10/train.zip"),
      File("", "img_cifar10/test.zip"),
    ),
    holds=("test", "train"),
    write=_write,
    configs=(
      "alexnet_cifar10",
      "cifar10_conv",
      "resnet_cifar10",
      "vgg_cifar10",
      "vit_cifar10",
      "wide_resnet_cifar10",
    ),
  )


def _write(files: Files) -> Written:
  """SPLIT/CLASS/NUMBER.png or .jpg."""
  if cifar.BINARY.name in files:
    yield from cifar.images(files[cifar.BINARY.name])
    return
  for split in ("train", "test"):
    for name, content in archives.members(
      files[f"{split}.zip"], r"[a-z]+/[0-9]+\.jpg"
    ):
      yield f"{split}/{name}", content
