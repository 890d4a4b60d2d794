"""Unpacks CIFAR-10's public JPEG subset to OUT/SPLIT/CLASS/NUMBER.jpg.

Reads train_first10000.zip and test_2000.zip in --data: the first 10,000
training images of CIFAR-10 and 200 test images of each class. The folder of an
image is its clean label.

  python benchmarks/data/prepare_cifar10.py --data=DIR --output=DIR
"""

import argparse
import os
import re
import sys
import zipfile

ARCHIVES = {
  "train": ("train_first10000.zip", 10_000),
  "test": ("test_2000.zip", 2_000),
}


def unpack(archive: str, split: str, output: str) -> int:
  """Writes the images of `archive` below `output`; returns their number.

  Raises:
    ValueError: a member is not SPLIT/CLASS/NUMBER.jpg. Nothing is written then.
  """
  expected = re.compile(rf"{split}/[a-z]+/[0-9]+\.jpg")
  with zipfile.ZipFile(archive) as images:
    names = [info.filename for info in images.infolist() if not info.is_dir()]
    for name in names:
      # The full name must match: no "..", no drive, no absolute path.
      if not expected.fullmatch(name):
        raise ValueError(f"{archive}: {name!r} is not {split}/CLASS/NUMBER.jpg")
    for name in names:
      path = os.path.join(output, *name.split("/"))
      os.makedirs(os.path.dirname(path), exist_ok=True)
      with open(path, "wb") as file:
        file.write(images.read(name))
  return len(names)


def main() -> None:
  """Unpacks both splits and checks their sizes."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--data", required=True, help="Where the zips are.")
  parser.add_argument("--output", required=True, help="Where the images go.")
  args = parser.parse_args()
  for split, (archive, images) in ARCHIVES.items():
    found = unpack(os.path.join(args.data, archive), split, args.output)
    if found != images:
      raise ValueError(f"{archive} holds {found} images, not {images}")
    print(f"{split}: {found} images in {os.path.join(args.output, split)}")


if __name__ == "__main__":
  try:
    main()
  except (OSError, ValueError, zipfile.BadZipFile) as error:
    sys.exit(f"prepare_cifar10: {error}")
