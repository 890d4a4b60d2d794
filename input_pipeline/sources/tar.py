"""tar:GLOB: images in tar archives, with random access without unpacking."""

import os
import re
from collections import Counter
from typing import NamedTuple

import numpy as np

from common import bounded_file
from input_pipeline import order
from input_pipeline.bad_records import Policy, check_size
from input_pipeline.reading import bounded, endings, image_size, tar_index
from input_pipeline.reading.paths import find_files, fingerprint
from input_pipeline.sources import Source

# Words that name a split, with the split's index in _NAMES.
_NAMES = ("", "train", "validation", "test")
_SPLITS = {"train": 1, "val": 2, "valid": 2, "validation": 2, "test": 3}
_MOST_LABELS = 2**28
_MOST_CLASSES = 2**20
# It defines the slices of an archive: never change it.
_TAR_KEY = np.uint64(0x7A2F01D)


class _Images(NamedTuple):
  """The locations of the images of all archives, and what is known of each.

  archive: int32 [n], the index of the archive.
  names: in the archive; "" for an archive that cannot be read.
  starts, sizes: int64 [n], bytes.
  wrong: {image: what is wrong with it}.
  split: int8 [n], an index of _NAMES.
  label: int32 [n], an index of the classes; -1 if only a file of labels has it.
  left: {ending: number} of the files that are not read.
  """

  archive: np.ndarray
  names: list[str]
  starts: np.ndarray
  sizes: np.ndarray
  wrong: dict[int, str]
  split: np.ndarray
  label: np.ndarray
  left: Counter


def tar(rest: str, policy: Policy = Policy()) -> dict[str, Source]:
  """tar:GLOB or tar:GLOB?labels=FILE: archives that are not compressed.

  {"image": the file's bytes, "label": int32 []}, in a fixed shuffled order. The
  class of an image is the folder that holds it, else the name of the inner tar,
  else, if there are several archives, that of the archive. The classes are
  numbered in sorted order. An image outside any folder, in a single archive,
  takes its class from FILE; without FILE there is no "label".

  A line of FILE is "NAME LABEL" or "NAME,LABEL" (further columns are ignored,
  as is a first line that names no image), or LABEL alone, in the sorted order
  of those images' names. Labels are names, or numbers from 0.

  If all archives have the word train, val or test in their names, they are
  splits, as are folders of these names that contain the class folders. Files of
  other formats are counted as in folder:DIR. ImageNet as it is
  distributed: 'tar:DIR/ILSVRC2012_img_[tv][ra]*.tar?labels=FILE', where FILE
  has the WordNet id of each validation image.

  In a prediction images need no class, and are in the order of the archive.

  The index of an archive is kept in the cache folder. A truncated or damaged
  archive is an error; under "skip" it is one bad record, and so is each link or
  sparse file.
  """
  uri = f"tar:{rest}"
  pattern, _, labels = rest.partition("?labels=")
  labels = os.path.expanduser(labels)
  paths = find_files(pattern, uri)
  classes: dict[str, int] = {}
  splits = [_split_of(path) for path in paths]
  if not all(splits):  # Archives of classes, of which one may be train.tar.
    splits = [0] * len(paths)
  parts = [
    _images(paths, i, split, classes, policy) for i, split in enumerate(splits)
  ]
  images = _joined(parts)
  suffixes = endings.images()
  if not images.names:
    raise ValueError(f"{uri} holds no image; valid: {' '.join(suffixes)}")
  note = endings.unread(uri, len(images.names), images.left, suffixes, policy)
  numbered = bool(labels) and _label(images, classes, labels, uri)
  names = list(classes) if numbered else sorted(classes)
  natives = _natives(images, classes, names, [*paths, labels], policy)
  return {
    name: source._replace(
      note="; ".join(each for each in (note, source.note) if each)
    )
    for name, source in natives.items()
  }


def _split_of(path: str) -> int:
  """Returns the split that an archive's name specifies, or 0."""
  stem = os.path.basename(path).removesuffix(".tar")
  words = [w for w in re.split(r"[^a-z]+", stem.lower()) if w in _SPLITS]
  return _SPLITS[words[-1]] if words else 0


def _images(
  paths: list[str],
  archive: int,
  split: int,
  classes: dict[str, int],
  policy: Policy,
) -> _Images:
  """Returns the images of one archive; adds new classes to `classes`."""
  path = paths[archive]
  stem = os.path.basename(path).removesuffix(".tar")
  try:
    found = tar_index.index(path, endings.images())
    wrong = {
      int(i): f"{path}: {found.names[i]}: {tar_index.reason(found.wrong[i])}"
      for i in np.flatnonzero(found.wrong)
    }
  except ValueError as error:
    if not policy.skip:
      raise
    none = np.zeros(1, np.int64)
    found = tar_index.Index([""], none, none, none)
    wrong = {0: str(error)}
  alone = -1
  if len(paths) > 1 and not split and found.names != [""]:
    alone = classes.setdefault(stem, len(classes))
  known = {"": (split, alone)}
  rows = np.zeros((len(found.names), 2), np.int32)
  for i, name in enumerate(found.names):
    folder = name.rpartition("/")[0]
    if folder not in known:
      known[folder] = _told(folder, split, alone, classes)
    rows[i] = known[folder]
  return _Images(
    np.full(len(rows), archive, np.int32),
    found.names,
    found.starts,
    found.sizes,
    wrong,
    rows[:, 0].astype(np.int8),
    rows[:, 1],
    Counter(found.left),
  )


def _told(
  folder: str, split: int, alone: int, classes: dict[str, int]
) -> tuple[int, int]:
  """Returns (split, class) of the files in a folder of an archive."""
  parts = [part for part in folder.split("/") if part not in ("", ".")]
  if not parts:
    return split, alone
  # An inner tar is treated as a folder, which contains its own folders.
  label = parts[-1]
  label = label[:-4] if label.lower().endswith(".tar") else label
  around = [_SPLITS[part] for part in parts[:-1] if part in _SPLITS]
  return (
    around[-1] if around else split,
    classes.setdefault(label, len(classes)),
  )


def _joined(parts: list[_Images]) -> _Images:
  offsets = np.cumsum([0, *(len(part.names) for part in parts)])
  return _Images(
    np.concatenate([part.archive for part in parts]),
    [name for part in parts for name in part.names],
    np.concatenate([part.starts for part in parts]),
    np.concatenate([part.sizes for part in parts]),
    {
      int(offset) + i: reason
      for offset, part in zip(offsets, parts, strict=False)
      for i, reason in part.wrong.items()
    },
    np.concatenate([part.split for part in parts]),
    np.concatenate([part.label for part in parts]),
    sum((part.left for part in parts), Counter()),
  )


def _label(
  images: _Images, classes: dict[str, int], file: str, uri: str
) -> bool:
  """Labels the images without a class from the file of labels.

  Returns:
    Whether the labels are the numbers of the classes.
  """
  bare = _bare(images)
  if not bare:
    raise ValueError(
      f"{uri}: every image is labelled by its folder or inner tar; leave out "
      "?labels="
    )
  content = bounded_file.read(file, _MOST_LABELS)
  try:
    lines = content.decode("utf-8-sig").splitlines()
  except UnicodeDecodeError as error:
    raise ValueError(f"{file}: not UTF-8 at byte {error.start}") from None
  rows = [re.split(r"[,\s]+", line.strip()) for line in lines if line.strip()]
  if rows and all(len(row) == 1 for row in rows):
    if len(rows) != len(bare):
      raise ValueError(
        f"{file} has {len(rows):,} labels for {len(bare):,} images"
      )
    in_order = sorted(bare, key=lambda i: images.names[i])
    found = {i: row[0] for i, row in zip(in_order, rows, strict=True)}
  else:
    found = _by_name(images.names, bare, rows, file)
  given = set(classes)
  for i, label in found.items():
    if given and label not in given:
      raise ValueError(
        f"{file}: {label!r}, the label of {images.names[i]}, is not a class of "
        "the images in folders"
      )
    images.label[i] = classes.setdefault(label, len(classes))
  return not given and _number(images, classes, uri)


def _bare(images: _Images) -> list[int]:
  """Returns the images that have no class."""
  places = np.flatnonzero(images.label < 0).tolist()
  return [i for i in places if images.names[i]]


def _by_name(
  names: list[str], bare: list[int], rows: list[list[str]], file: str
) -> dict[int, str]:
  """Returns {image: label} from lines that name it, with or without suffix."""
  places = {}
  for i in bare:
    places[names[i]] = places[os.path.splitext(names[i])[0]] = i
  found = {}
  for number, row in enumerate(rows):
    i = places.get(row[0])
    if i is None and number == 0:
      continue  # A header.
    if i is None or len(row) < 2 or i in found:
      why = "names no image" if i is None else "has no label or occurs twice"
      raise ValueError(f"{file}: {row[0]!r} {why}")
    found[i] = row[1]
  missing = [i for i in bare if i not in found]
  if missing:
    raise ValueError(
      f"{file} has no label for {len(missing):,} of {len(bare):,} images: "
      f"{names[missing[0]]}"
    )
  return found


def _number(images: _Images, classes: dict[str, int], uri: str) -> bool:
  """Uses a file's labels as class numbers if they are numbers."""
  if not all(name.isascii() and name.isdigit() for name in classes):
    return False
  numbers = sorted(int(name) for name in classes)
  if numbers == list(range(1, len(numbers) + 1)):
    raise ValueError(
      f"{uri}: its labels run from 1 to {len(numbers)}, but must count from 0; "
      "ImageNet's own numbers are not in the order of the WordNet ids of its "
      "training images: use the ids as labels"
    )
  if numbers[-1] >= _MOST_CLASSES or len(set(numbers)) < len(classes):
    raise ValueError(
      f"{uri}: {max(classes, key=int)!r} is not a valid class number"
    )
  of_code = np.array([int(name) for name in classes], np.int32)
  images.label[:] = np.where(images.label < 0, -1, of_code[images.label])
  classes.clear()
  classes.update({str(n): n for n in range(numbers[-1] + 1)})
  return True


def _natives(
  images: _Images,
  classes: dict[str, int],
  names: list[str],
  files: list[str],
  policy: Policy,
) -> dict[str, Source]:
  """Returns the splits; the classes are numbered in the order of `names`."""
  *paths, labels = files
  bare = _bare(images)
  note = ""
  if bare and classes and policy.labels:
    raise ValueError(
      f"{paths[images.archive[bare[0]]]}: {images.names[bare[0]]!r} is "
      "not in a folder, as other images are; add ?labels=FILE"
    )
  if bare and policy.labels:
    note = f"{paths[0]} has no labels; ?labels=FILE sets them"
  place = np.zeros(len(names) + 1, np.int32)
  place[[classes[name] for name in names]] = np.arange(len(names))
  images.label[:] = place[images.label]
  unread = tuple(sorted(images.left.items()))
  groups = {"all": np.arange(len(images.names))}
  if images.split.all():
    groups = {
      _NAMES[code]: np.flatnonzero(images.split == code)
      for code in np.unique(images.split)
    }
  print_of = fingerprint([*paths, labels] if labels else paths)
  return {
    name: _source(images, rows, paths, names, policy)._replace(
      fingerprint=print_of, note=note, unread=unread
    )
    for name, rows in groups.items()
  }


def _source(
  images: _Images,
  rows: np.ndarray,
  paths: list[str],
  classes: list[str],
  policy: Policy,
) -> Source:
  """Returns a source of some rows' images, in a shuffled order."""
  if policy.labels:
    rows = rows[order.permute(np.arange(len(rows)), len(rows), _TAR_KEY)]

  def name(index: int) -> str:
    row = int(rows[index])
    path = paths[images.archive[row]]
    return f"{path}: {images.names[row]}" if images.names[row] else path

  def one(index: int) -> bytes:
    row = int(rows[index])
    if row in images.wrong:
      raise ValueError(images.wrong[row])
    size, path = int(images.sizes[row]), paths[images.archive[row]]
    check_size(size, name(index), policy)
    try:
      with open(path, "rb", buffering=0) as file:
        file.seek(int(images.starts[row]))
        content = file.read(size)
    except OSError as error:
      raise bounded.failure(path, error) from None
    if len(content) != size:
      raise ValueError(f"{name(index)}: cut short")
    image_size.check_image(content, name(index), policy)
    return content

  def read(indices: np.ndarray) -> dict[str, np.ndarray]:
    found = np.empty(len(indices), object)
    for i, index in enumerate(indices):
      found[i] = one(int(index))
    if not classes:
      return {"image": found}
    return {"image": found, "label": images.label[rows[indices]]}

  return Source(
    len(rows),
    read,
    name,
    num_classes=len(classes) or None,
    class_names=tuple(classes) or None,
  )
