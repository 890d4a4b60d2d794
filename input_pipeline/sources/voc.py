"""voc:DIR: pictures with boxes, as Pascal VOC stores them."""

import collections
import os
from typing import NamedTuple

import numpy as np

from input_pipeline.bad_records import Policy
from input_pipeline.reading import bounded, endings, image_size, voc_xml
from input_pipeline.reading.paths import fingerprint
from input_pipeline.sources import Source
from input_pipeline.sources.parts import partners, query

_SPLITS = ("train", "val", "test", "trainval")
_SETTINGS = {
  "outside": ("clip", "drop", "error"),
  "empty": ("drop", "error"),
  "difficult": ("keep", "drop"),
  "classes": ("",),
}
# Of an XML file.
_MOST_BYTES = 2**24


class _Picture(NamedTuple):
  """One picture and its objects; `error` is what is wrong with it, or ""."""

  path: str
  size: tuple[int, int] = (0, 0)
  boxes: np.ndarray = np.zeros((0, 4), np.float32)
  names: tuple[str, ...] = ()
  difficult: tuple[bool, ...] = ()
  error: str = ""


def voc(rest: str, policy: Policy = Policy()) -> dict[str, Source]:
  """voc:DIR: JPEGImages, Annotations/*.xml and ImageSets/Main, as in VOC.

  {"image": the file's bytes, "boxes": float32 [n, 4], "classes": int32 [n],
  "difficult": int32 [n]}. A box is (x0, y0, x1, y1) in pixels from the upper
  left corner of the picture, from 0 and without its end: (0, 0, 1, 1) is the
  first pixel. A picture without objects has n = 0. The picture of an
  annotation is the one of the same name, whatever the annotation calls it.

  The splits are train, val, test and trainval, as far as ImageSets/Main/*.txt
  lists them, and `all`; without such lists a tenth is held out. A note counts
  the boxes that are changed or left out, and the pictures without an
  annotation, and the reverse, of which more than `max_bad_share` are an error.
  Settings follow "?", joined by "&":

  classes: the names of the classes in the order of their numbers, separated by
    commas; objects of other classes are left out. The default is all names of
    the data, sorted.
  outside: what happens to a box that reaches beyond its picture: clip (the
    default), drop or error. A box that lies outside has no area once clipped.
  empty: what happens to a box without area, such as one whose corners coincide
    (xmax <= xmin): drop (the default) or error.
  difficult: keep (the default) or drop the objects that are marked so.
  """
  root, settings = query.split(rest, "voc", _SETTINGS)
  uri, root = f"voc:{root}", os.path.expanduser(root)
  folder = os.path.join(root, "Annotations")
  if not os.path.isdir(folder):
    raise ValueError(f"{uri} has no folder Annotations")
  files = partners.stems(folder, (".xml",))
  images = partners.stems(os.path.join(root, "JPEGImages"), endings.images())
  stems = [stem for stem in files if stem in images]
  if not stems:
    raise ValueError(f"{uri} has no annotated picture")
  alone = [f"{s}.xml has no picture" for s in files if s not in images]
  alone += [f"{s} has no annotation" for s in images if s not in files]
  notes = [partners.unmatched(uri, len(stems), alone, policy)]
  counts: collections.Counter = collections.Counter()
  pictures = {
    stem: _picture(files[stem], images[stem], settings, counts, policy)
    for stem in stems
  }
  classes = _classes(uri, pictures, settings["classes"])
  used = sum(n in classes for each in pictures.values() for n in each.names)
  counts["of other classes left out"] = (
    sum(len(each.names) for each in pictures.values()) - used
  )
  counted = [f"{n:,} {what}" for what, n in sorted(counts.items()) if n]
  if counted:
    notes.append(f"{uri}: {used:,} boxes; {', '.join(counted)}")
  splits, note = _splits(uri, root, stems, policy)
  note = "; ".join(each for each in [*notes, note] if each)
  stamp = f"{fingerprint(list(files.values()))} {settings}"
  return {
    name: _source(
      [pictures[stem] for stem in listed], classes, policy
    )._replace(note=note, fingerprint=stamp)
    for name, listed in splits.items()
  }


def _picture(
  path: str,
  image: str,
  settings: dict[str, str],
  counts: collections.Counter,
  policy: Policy,
) -> _Picture:
  """Reads an annotation; under "skip" a wrong one is reported when it is read.

  Args:
    path: of the XML file.
    image: the path of the picture.
    settings: of the source.
    counts: {what happened to boxes: their number}, which is added to.
    policy: of bad records.
  """
  try:
    least = min(_MOST_BYTES, policy.max_record_bytes)
    data = bounded.read_file(path, policy._replace(max_record_bytes=least))
    found = voc_xml.parse(data, path)
    size = found.width, found.height
    if not all(size):
      size = image_size.image_size(bounded.read_file(image, policy))[:2]
    kept = []
    for each in found.objects:
      box = _box(each, size, settings, counts, path)
      if box is not None:
        kept.append((each, box))
  except ValueError as error:
    if not policy.skip:
      raise
    return _Picture(image, error=str(error))
  boxes = np.array([box for _, box in kept], np.float32).reshape(-1, 4)
  return _Picture(
    image,
    size,
    boxes,
    tuple(each.name for each, _ in kept),
    tuple(each.difficult for each, _ in kept),
  )


def _box(
  each: voc_xml.Object,
  size: tuple[int, int],
  settings: dict[str, str],
  counts: collections.Counter,
  path: str,
) -> tuple[float, ...] | None:
  """Returns (x0, y0, x1, y1) of an object, or None if it is left out."""
  width, height = size
  xmin, ymin, xmax, ymax = each.corners
  said = f"the box of {each.name!r} at {xmin:g}, {ymin:g}, {xmax:g}, {ymax:g}"
  if each.difficult and settings["difficult"] == "drop":
    counts["difficult left out"] += 1
    return None
  # Annotators who click once leave a point, whose corners coincide.
  empty = xmax <= xmin or ymax <= ymin
  x0, y0, x1, y1 = xmin - 1, ymin - 1, xmax, ymax
  if not empty and (x0 < 0 or y0 < 0 or x1 > width or y1 > height):
    if settings["outside"] == "error":
      raise ValueError(
        f"{path}: {said} reaches beyond the picture of {width} x {height}"
        " pixels; ?outside=clip or drop admits it"
      )
    if settings["outside"] == "drop":
      counts["beyond their pictures left out"] += 1
      return None
    x0, x1 = max(x0, 0), min(x1, width)
    y0, y1 = max(y0, 0), min(y1, height)
    empty = x1 <= x0 or y1 <= y0
    counts["beyond their pictures clipped"] += not empty
  if empty:
    if settings["empty"] == "error":
      raise ValueError(
        f"{path}: {said} has no area in the picture; ?empty=drop leaves it out"
      )
    counts["without area left out"] += 1
    return None
  counts["difficult"] += each.difficult
  return x0, y0, x1, y1


def _classes(
  uri: str, pictures: dict[str, _Picture], given: str
) -> tuple[str, ...]:
  """Returns the names of the classes in the order of their numbers."""
  found = sorted({name for each in pictures.values() for name in each.names})
  if not given:
    if not found:
      raise ValueError(f"{uri} has no box; ?classes=a,b names the classes")
    return tuple(found)
  names = tuple(name.strip() for name in given.split(","))
  if len(set(names)) < len(names) or not all(names):
    raise ValueError(f"{uri}: classes={given!r} has an empty or repeated name")
  unknown = [name for name in names if name not in found]
  if len(unknown) == len(names):
    raise ValueError(
      f"{uri}: no box of classes={given!r} (there are: {', '.join(found)})"
    )
  return names


def _splits(
  uri: str, root: str, stems: list[str], policy: Policy
) -> tuple[dict[str, list[str]], str]:
  """Returns {split: its pictures}, and a note of names without a picture."""
  known, found, missing = set(stems), {}, []
  for name in _SPLITS:
    path = os.path.join(root, "ImageSets", "Main", f"{name}.txt")
    if not os.path.exists(path):
      continue
    try:
      lines = bounded.read_file(path, policy).decode().splitlines()
    except UnicodeDecodeError:
      raise ValueError(f"{path} is not UTF-8") from None
    # A second column would say whether a class is there.
    listed = [line.split()[0] for line in lines if line.strip()]
    found[name] = [stem for stem in listed if stem in known]
    missing += [f"{s} of {name}" for s in listed if s not in known]
  matched = sum(map(len, found.values()))
  return {**found, "all": stems}, partners.unmatched(
    f"{uri}/ImageSets", matched, missing, policy
  )


def _source(
  pictures: list[_Picture], classes: tuple[str, ...], policy: Policy
) -> Source:
  numbers = {name: i for i, name in enumerate(classes)}

  def read(indices: np.ndarray) -> dict[str, np.ndarray]:
    fields = ("image", "boxes", "classes", "difficult")
    rows = {field: np.empty(len(indices), object) for field in fields}
    for i, index in enumerate(indices):
      found = _record(pictures[index], numbers, policy)
      for field, value in zip(fields, found, strict=True):
        rows[field][i] = value
    return rows

  return Source(
    len(pictures),
    read,
    lambda index: pictures[index].path,
    num_classes=len(classes),
    class_names=classes,
  )


def _record(picture: _Picture, numbers: dict[str, int], policy: Policy):
  """Returns (image, boxes, classes, difficult) of a picture."""
  path = picture.path
  if picture.error:
    raise ValueError(f"{path}: {picture.error}")
  image = bounded.read_file(path, policy)
  image_size.check_image(image, path, policy)
  size = image_size.image_size(image)[:2]
  if any(size) and size != picture.size:
    raise ValueError(
      f"{path}: the picture is {size[0]} x {size[1]} and its annotation"
      f" {picture.size[0]} x {picture.size[1]} pixels"
    )
  own = [i for i, name in enumerate(picture.names) if name in numbers]
  return (
    image,
    picture.boxes[own],
    np.array([numbers[picture.names[i]] for i in own], np.int32),
    np.array([picture.difficult[i] for i in own], np.int32),
  )
