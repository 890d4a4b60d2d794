"""tar:GLOB, images in tar archives, read at random without unpacking."""

import os
import re
from typing import NamedTuple

import numpy as np

from input_pipeline import bounded, bounded_file, image_size, order, tar_index
from input_pipeline.bad_records import Policy, check_size
from input_pipeline.source import Source
from input_pipeline.source_text import find_files, fingerprint

_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif")
_SPLITS = {
  "train": "train",
  "val": "validation",
  "valid": "validation",
  "validation": "validation",
  "test": "test",
}
_MOST_LABELS = 2**28
_MOST_CLASSES = 2**20
# Part of the meaning of a slice of an archive: never change it.
_TAR_KEY = np.uint64(0x7A2F01D)


class _Image(NamedTuple):
  """Where an image lies, and what is known of it.

  archive: an index of the archives.
  split: that its folder or the archive's name tells, or "".
  label: the name of its class, or None where only a file of labels has it.
  """

  archive: int
  name: str
  start: int
  size: int
  wrong: str
  split: str
  label: str | None


def tar(rest: str, policy: Policy = Policy()) -> dict[str, Source]:
  """tar:GLOB or tar:GLOB?labels=FILE, archives that are not compressed.

  {"image": the file's bytes, "label": int32 []}, in a fixed shuffled order.
  The class is the folder that holds the image, else the name of the inner tar,
  else, where there are several archives, of the archive. The classes are
  numbered in sorted order. An image in the one archive, in no folder, takes
  its class from FILE; without FILE there is no "label".

  A line of FILE is "NAME LABEL" or "NAME,LABEL" (what follows is left out, a
  first line that names no image, too), or LABEL alone, in the sorted order of
  those images' names. Labels are names, or numbers from 0 on.

  Archives with the word train, val or test in their names are splits, as are
  folders of that name around those of the classes. ImageNet as it is
  distributed: 'tar:DIR/ILSVRC2012_img_[tv][ra]*.tar?labels=FILE', where FILE
  has the WordNet id of each validation image.

  What is found in an archive is kept in the cache folder. One that is cut
  short or damaged is an error; under "skip" it is one bad record, and so is
  each link or sparse file.
  """
  uri = f"tar:{rest}"
  pattern, _, labels = rest.partition("?labels=")
  paths = find_files(pattern, uri)
  images: list[_Image] = []
  for i in range(len(paths)):
    images += _images(paths, i, policy)
  if not images:
    raise ValueError(f"{uri} holds no image; valid: {' '.join(_SUFFIXES)}")
  if labels:
    images = _labelled(images, os.path.expanduser(labels), uri)
  return _natives(images, paths, labels, uri, policy)


def _images(paths: list[str], archive: int, policy: Policy) -> list[_Image]:
  path = paths[archive]
  stem = os.path.basename(path).removesuffix(".tar")
  words = [w for w in re.split(r"[^a-z]+", stem.lower()) if w in _SPLITS]
  split = _SPLITS[words[-1]] if words else ""
  try:
    found = tar_index.index(path, _SUFFIXES)
  except ValueError as error:
    if not policy.skip:
      raise
    return [_Image(archive, "", 0, 0, str(error), split, None)]
  images = []
  for i, name in enumerate(found.names):
    wrong = tar_index.reason(int(found.wrong[i]))
    folders = [part for part in name.split("/")[:-1] if part not in ("", ".")]
    inner, label = split, None
    if folders:
      label = folders[-1]
      # Of an inner tar the name is a folder's, and its folders come after it.
      label = label[:-4] if label.lower().endswith(".tar") else label
      around = [_SPLITS[f] for f in folders[:-1] if f in _SPLITS]
      inner = around[-1] if around else split
    elif len(paths) > 1 and not split:
      label = stem
    place = int(found.starts[i]), int(found.sizes[i])
    images.append(_Image(archive, name, *place, wrong, inner, label))
  return images


def _labelled(images: list[_Image], file: str, uri: str) -> list[_Image]:
  """The images, those without a class with that of the file of labels."""
  bare = [i for i, x in enumerate(images) if x.label is None and x.name]
  if not bare:
    raise ValueError(f"{uri}: every image has a folder or inner tar as label")
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
    in_order = sorted(bare, key=lambda i: images[i].name)
    found = {i: row[0] for i, row in zip(in_order, rows, strict=True)}
  else:
    found = _by_name(images, bare, rows, file)
  known = {x.label for x in images} - {None}
  for i, label in found.items():
    if known and label not in known:
      raise ValueError(
        f"{file}: {label!r}, the label of {images[i].name}, is the class of no "
        "image that has a folder"
      )
    images[i] = images[i]._replace(label=label)
  return images


def _by_name(
  images: list[_Image], bare: list[int], rows: list[list[str]], file: str
) -> dict[int, str]:
  """{image: label} of lines that name it, with its ending or without."""
  places = {}
  for i in bare:
    places[images[i].name] = places[os.path.splitext(images[i].name)[0]] = i
  found = {}
  for number, row in enumerate(rows):
    i = places.get(row[0])
    if i is None and number == 0:
      continue  # The names of the columns.
    if i is None or len(row) < 2 or i in found:
      why = "names no image" if i is None else "has no label, or comes twice"
      raise ValueError(f"{file}: {row[0]!r} {why}")
    found[i] = row[1]
  missing = [i for i in bare if i not in found]
  if missing:
    raise ValueError(
      f"{file} has no label for {len(missing):,} of {len(bare):,} images: "
      f"{images[missing[0]].name}"
    )
  return found


def _natives(
  images: list[_Image],
  paths: list[str],
  labels: str,
  uri: str,
  policy: Policy,
) -> dict[str, Source]:
  readable = [x for x in images if x.name]
  bare = [x for x in readable if x.label is None]
  if bare and len(bare) < len(readable):
    raise ValueError(
      f"{uri}: {bare[0].name!r} has no folder to be its label, and others "
      "have; add ?labels=FILE"
    )
  classes = None
  if not bare:
    classes = sorted({x.label for x in readable})
    if labels and all(c.isascii() and c.isdigit() for c in classes):
      classes = _numbered(classes, uri)
  groups = {"all": images}
  if all(x.split for x in images):
    names = dict.fromkeys(x.split for x in images)
    groups = {k: [x for x in images if x.split == k] for k in names}
  files = [*paths, os.path.expanduser(labels)] if labels else paths
  note = f"{uri} has no labels; ?labels=FILE gives them" if bare else ""
  print_of = fingerprint(files)
  return {
    name: _source(group, paths, classes, policy)._replace(
      fingerprint=print_of, note=note
    )
    for name, group in groups.items()
  }


def _numbered(given: list[str], uri: str) -> list[str]:
  """The names of the classes where a file of labels has their numbers."""
  numbers = sorted(int(name) for name in given)
  if numbers == list(range(1, len(numbers) + 1)):
    raise ValueError(
      f"{uri}: its labels run from 1 to {len(numbers)}; numbers count from 0, "
      "and ImageNet's own are not in the order of its WordNet ids, which the "
      "training images have: give the ids"
    )
  if numbers[-1] >= _MOST_CLASSES or [str(n) for n in numbers] != sorted(
    given, key=int
  ):
    raise ValueError(f"{uri}: {given[-1]!r} is no number of a class")
  return [str(n) for n in range(numbers[-1] + 1)]


def _source(
  images: list[_Image],
  paths: list[str],
  classes: list[str] | None,
  policy: Policy,
) -> Source:
  places = order.permute(np.arange(len(images)), len(images), _TAR_KEY)
  images = [images[place] for place in places]
  label_of = {name: i for i, name in enumerate(classes or ())}
  labels = np.array([label_of.get(x.label, 0) for x in images], np.int32)

  def name(index: int) -> str:
    image = images[index]
    path = paths[image.archive]
    return f"{path}: {image.name}" if image.name else path

  def one(index: int) -> bytes:
    image = images[index]
    if image.wrong:
      told = image.wrong if not image.name else f"{name(index)}: {image.wrong}"
      raise ValueError(told)
    check_size(image.size, name(index), policy)
    path = paths[image.archive]
    try:
      with open(path, "rb", buffering=0) as file:
        file.seek(image.start)
        content = file.read(image.size)
    except OSError as error:
      raise bounded.failure(path, error) from None
    if len(content) != image.size:
      raise ValueError(f"{name(index)}: cut short")
    image_size.check_image(content, name(index), policy)
    return content

  def read(indices: np.ndarray) -> dict[str, np.ndarray]:
    found = np.empty(len(indices), object)
    for row, index in enumerate(indices):
      found[row] = one(int(index))
    if classes is None:
      return {"image": found}
    return {"image": found, "label": labels[indices]}

  return Source(
    len(images),
    read,
    name,
    num_classes=None if classes is None else len(classes),
    class_names=None if classes is None else tuple(classes),
  )
