"""CIFAR-10 in its binary version, and the human labels of CIFAR-10N."""

import collections
import pathlib
import pickletools
from collections.abc import Iterator

import numpy as np

from input_pipeline.datasets import File
from input_pipeline.datasets.parts import archives, png

CLASSES = (
  "airplane",
  "automobile",
  "bird",
  "cat",
  "deer",
  "dog",
  "frog",
  "horse",
  "ship",
  "truck",
)
# One person's each, the majority's, and one of those that are wrong, if any is.
LABELS = (
  "clean_label",
  "aggre_label",
  "worse_label",
  "random_label1",
  "random_label2",
  "random_label3",
)
BINARY = File(
  address="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
  local="img_cifar10/cifar-10-binary.tar.gz",
  size=170_052_171,
  sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
)
LICENCE = "none stated (Krizhevsky 2009: free for research)"
# A label and 32 x 32 values of red, of green and of blue.
_RECORD = 1 + 3 * 32 * 32


def images(
  path: pathlib.Path, train: int = 50_000, test: int = 10_000
) -> Iterator[tuple[str, bytes]]:
  """(SPLIT/CLASS/NUMBER.png, content); NUMBER counts the images of a class.

  Args:
    path: cifar-10-binary.tar.gz.
    train: how many of the training images, in the official order.
    test: how many of the test images of each class.

  Raises:
    ValueError: the archive does not have six batches of 10,000 images.
  """
  batches = dict(archives.members(path, r"[\w-]+/(data|test)_batch[_\d]*\.bin"))
  batches = {name.rpartition("/")[2]: batch for name, batch in batches.items()}
  names = [f"data_batch_{i}.bin" for i in range(1, 6)]
  for name in (*names, "test_batch.bin"):
    if len(batches.get(name, b"")) != 10_000 * _RECORD:
      raise ValueError(f"{path}: {name} does not hold 10,000 images")
  yield from _split("train", b"".join(batches[n] for n in names), train, train)
  yield from _split("test", batches["test_batch.bin"], 10_000, test)


def _split(split: str, content: bytes, first: int, most: int):
  """Returns the first images of a split, with a limit for each class."""
  records = np.frombuffer(content, np.uint8).reshape(-1, _RECORD)[:first]
  seen: collections.Counter = collections.Counter()
  for record in records:
    label = CLASSES[record[0]]
    if seen[label] < most:
      pixels = record[1:].reshape(3, 32, 32).transpose(1, 2, 0)
      name = f"{split}/{label}/{seen[label]:04d}.png"
      yield name, png.rgb(pixels.tobytes(), 32, 32)
    seen[label] += 1


def human_labels(path: pathlib.Path) -> dict[str, np.ndarray]:
  """{name: int64 [50000]} of CIFAR-10_human.pt.

  The file is a pickle in a zip archive. It is not unpickled, which could run
  code: its operations are listed, and the strings among them read. The bytes
  of each array are the first long string that follows its name.

  Raises:
    ValueError: that is not what the file holds.
  """
  found: dict[str, np.ndarray] = {}
  name = ""
  for _, content in archives.members(path, r"[\w-]+/data\.pkl"):
    for _, value, _ in pickletools.genops(content):
      if isinstance(value, str) and value in LABELS:
        name = value
      elif isinstance(value, str) and len(value) == 8 * 50_000 and name:
        found[name] = np.frombuffer(value.encode("latin-1"), "<i8")
        name = ""
  if set(found) != set(LABELS):
    raise ValueError(f"{path}: does not hold {', '.join(LABELS)}")
  return found
