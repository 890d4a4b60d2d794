"""Sources of labelled images: idx:DIR and folder:DIR."""

import functools
import math
import os

import numpy as np

from input_pipeline import bounded, image_size, order
from input_pipeline.bad_records import Policy
from input_pipeline.source import Source
from input_pipeline.source_text import fingerprint

_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif")
_SPLIT_FOLDERS = ("train", "validation", "val", "test")
# Part of the meaning of a slice of a folder: never change it.
_FOLDER_KEY = np.uint64(0xF01DE7)


def idx(folder: str, policy: Policy = Policy()) -> dict[str, Source]:
  """idx:DIR, the files of the MNIST family, gzipped or not.

  train-{images-idx3,labels-idx1}-ubyte and t10k-..., as "train" and "test":
  {"image": uint8 [h, w, 1], "label": int32 []}. The labels are read at once;
  where the file of the images is broken, each of them is a bad record.
  """
  del policy  # Each record is as small as the header says.
  uri = f"idx:{folder}"
  folder = os.path.expanduser(folder)
  natives = {}
  for prefix, split in (("train", "train"), ("t10k", "test")):
    images = _idx_path(folder, f"{prefix}-images", 3)
    labels = _idx_path(folder, f"{prefix}-labels", 1)
    if images and labels:
      natives[split] = _idx_split(images, labels)
    elif images or labels:
      kind = "labels" if images else "images"
      raise ValueError(f"{uri} has no {prefix}-{kind} file")
  if "train" not in natives:
    raise ValueError(f"{uri} has no train-images-idx3-ubyte[.gz]")
  classes = max(native.num_classes for native in natives.values())
  return {k: v._replace(num_classes=classes) for k, v in natives.items()}


def _idx_path(folder: str, stem: str, rank: int) -> str | None:
  for name in (f"{stem}-idx{rank}-ubyte", f"{stem}.idx{rank}-ubyte"):
    for suffix in ("", ".gz"):
      path = os.path.join(folder, name + suffix)
      if os.path.isfile(path):
        return path
  return None


def _idx_bytes(path: str, size: int) -> bytes:
  """The first bytes of a file, inflated, or all where it has fewer."""
  found = bytearray()
  for chunk in bounded.chunks(path):
    found += chunk[: size - len(found)]
    if len(found) >= size:
      break
  return bytes(found)


def _idx_shape(path: str, rank: int) -> tuple[int, ...]:
  """The shape that a header tells; big-endian int32 after the magic number."""
  header = _idx_bytes(path, 4 + 4 * rank)
  magic = 0x0800 + rank
  if len(header) < 4 + 4 * rank or int.from_bytes(header[:4], "big") != magic:
    raise ValueError(f"{path}: not an idx file, no magic number {magic:#010x}")
  return tuple(int(n) for n in np.frombuffer(header[4:], ">u4"))


def _idx_array(path: str, shape: tuple[int, ...]) -> np.ndarray:
  """The array of an idx file; memory-mapped where it is not compressed."""
  start, size = 4 + 4 * len(shape), math.prod(shape)
  if path.endswith(".gz"):
    bounded.check_inflated(path, start + size)
    # One byte more than there should be tells that there are more.
    data = np.frombuffer(_idx_bytes(path, start + size + 1), np.uint8)[start:]
  else:
    data = np.memmap(path, np.uint8, mode="r")[start:]
  if data.size != size:
    more = "more" if data.size > size else f"{data.size:,}"
    raise ValueError(
      f"{path}: {more} bytes of data, where its header says {size:,}"
    )
  return data.reshape(shape)


def _idx_split(image_path: str, label_path: str) -> Source:
  shape = _idx_shape(image_path, 3)
  (count,) = _idx_shape(label_path, 1)
  if shape[0] != count:
    raise ValueError(f"{image_path}: {shape[0]} images, but {count} labels")
  labels = _idx_array(label_path, (count,)).astype(np.int32)

  # Opening one split must not inflate the other.
  @functools.cache
  def images() -> np.ndarray | str:
    try:
      return _idx_array(image_path, shape)
    except ValueError as error:
      return str(error)  # Kept, or each record would inflate the file again.

  def read(indices: np.ndarray) -> dict[str, np.ndarray]:
    found = images()
    if isinstance(found, str):
      raise ValueError(found)
    return {"image": found[indices][..., None], "label": labels[indices]}

  return Source(
    count,
    read,
    lambda index: f"{image_path} image {index}",
    num_classes=int(labels.max(initial=-1)) + 1,
    fingerprint=fingerprint([image_path, label_path]),
  )


def folder(root: str, policy: Policy = Policy()) -> dict[str, Source]:
  """folder:DIR, a folder of images per class, labelled in sorted order.

  DIR/train, DIR/validation (or val) and DIR/test are splits where DIR/train
  exists. {"image": the file's bytes, "label": int32 []}. Examples come in a
  fixed shuffled order, so that a slice of a split holds every class. A folder
  that cannot be read is an error; under "skip" it is one bad record.
  """
  classes, found = class_folders(f"folder:{root}", root, _SUFFIXES, policy)
  return {
    name: _folder(files, classes, policy) for name, files in found.items()
  }


def class_folders(
  uri: str, root: str, suffixes: tuple[str, ...], policy: Policy
) -> tuple[list[str], dict[str, list[tuple[str, int]]]]:
  """The classes' names, sorted, and each split's files (path, label).

  Args:
    uri: what to call it in an error.
    root: a folder of folders, or of splits of them.
    suffixes: of the files, in lower case.
    policy: under "skip" a folder that cannot be read stays as a bad file.
  """
  root = os.path.expanduser(root)
  if not os.path.isdir(root):
    raise ValueError(f"{uri} is not a folder")
  roots = {"all": root}
  if os.path.isdir(os.path.join(root, "train")):
    roots = {
      split: os.path.join(root, split)
      for split in _SPLIT_FOLDERS
      if os.path.isdir(os.path.join(root, split))
    }
  try:
    classes = sorted(
      {
        entry.name
        for each in roots.values()
        for entry in os.scandir(each)
        if entry.is_dir() and not entry.name.startswith(".")
      }
    )
  except OSError as error:
    raise bounded.failure(error.filename, error) from None
  found = {
    name: _files(each, classes, suffixes, policy)
    for name, each in roots.items()
  }
  if not any(files for files in found.values()):
    scheme = "audio" if ".wav" in suffixes else "images"
    raise ValueError(
      f"{uri} has no folders of {scheme}; valid: {' '.join(suffixes)}"
    )
  return classes, found


def _files(
  root: str, classes: list[str], suffixes: tuple[str, ...], policy: Policy
) -> list[tuple[str, int]]:
  found = []

  def unreadable(error: OSError) -> None:
    if not policy.skip:
      raise bounded.failure(error.filename, error) from None
    found.append((error.filename, label))

  for label, name in enumerate(classes):
    path = os.path.join(root, name)
    if not os.path.lexists(path):
      continue  # A class of another split.
    for where, folders, files in os.walk(path, onerror=unreadable):
      folders.sort()
      found += [
        (os.path.join(where, file), label)
        for file in sorted(files)
        if file.lower().endswith(suffixes)
      ]
  if not found:
    return found
  places = order.permute(np.arange(len(found)), len(found), _FOLDER_KEY)
  return [found[place] for place in places]


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
