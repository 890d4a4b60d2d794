"""yolo:DIR: pictures with a text file of boxes or polygons each."""

import os
from collections.abc import Iterator
from typing import NamedTuple

from input_pipeline.bad_records import Policy
from input_pipeline.reading import bounded, endings
from input_pipeline.reading.annotations import yolo_text
from input_pipeline.reading.paths import fingerprint
from input_pipeline.sources import Source
from input_pipeline.sources.parts import objects, partners, query

_SPLITS = {
  "train": "train",
  "val": "val",
  "valid": "val",
  "validation": "val",
  "test": "test",
}
_IMAGES, _LABELS = "images", "labels"
_YAML = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
_CLASSES = ("classes.txt", "obj.names")
_SETTINGS = objects.SETTINGS | objects.MASKS


class _Labels(NamedTuple):
  """A picture and its file of labels, which may not exist."""

  image: str
  path: str


def yolo(rest: str, policy: Policy = Policy()) -> dict[str, Source]:
  """yolo:DIR: images and labels, as YOLO's programs lay them out.

  {"image": the file's bytes, "boxes": float32 [n, 4], "classes": int32 [n],
  "crowd": int32 [n], all 0}. A box is (x0, y0, x1, y1) in pixels from the upper
  left corner of the picture, without its end; of a row with a polygon it is the
  box around the polygon.

  The splits are those of DIR/data.yaml, or else the folders images/train,
  train/images and so on; images and labels alone are one data set. The labels
  of images/a.jpg are labels/a.txt, or a.txt beside the picture. A picture
  without such a file, or whose file is empty, is an example without objects; a
  note counts the missing files. Labels without a picture are left out; more
  than `max_bad_share` of them are an error.

  The names of the classes are those of data.yaml or classes.txt; without
  either, the numbers are the names. Settings follow "?", joined by "&":

  masks: true adds "instances", uint8 [n, height, width], from the polygons;
    it needs pycocotools (extra vision). Rows with boxes are then left out.
  classes, outside, empty: see voc:DIR; the default of classes is all names.
  """
  root, settings = query.split(rest, "yolo", _SETTINGS)
  uri, root = f"yolo:{root}", os.path.expanduser(root)
  if not os.path.isdir(root):
    raise ValueError(f"{uri} is not a folder")
  try:
    folders, names = _folders(uri, root, policy)
    files = {
      split: [_Labels(p, _labels(root, p)) for f in each for p in _below(f)]
      for split, each in folders.items()
    }
    notes = [_missing(uri, root, folders, files, policy)]
  except OSError as error:
    raise bounded.failure(error.filename, error) from None
  given = objects.rules(settings)._replace(relative=True)
  found = {
    split: [_picture(each, names, given, policy) for each in listed]
    for split, listed in files.items()
  }
  whole = [picture for each in found.values() for picture in each]
  if not names:
    used = {int(name) for each in whole for name in each.names}
    names = tuple(map(str, range(max(used, default=-1) + 1)))
    if not names:
      raise ValueError(f"{uri} has no box and no names of classes")
  classes = objects.chosen(uri, names, settings["classes"])
  notes.append(objects.note(uri, whole, classes, given))
  note = "; ".join(each for each in notes if each)
  paths = [each.path for listed in files.values() for each in listed]
  stamp = f"{fingerprint(paths)} {settings}"
  return {
    split: objects.source(pictures, classes, given, policy)._replace(
      note=note, fingerprint=stamp
    )
    for split, pictures in found.items()
  }


def _folders(
  uri: str, root: str, policy: Policy
) -> tuple[dict[str, list[str]], tuple[str, ...]]:
  """Returns ({split: its folders or lists of pictures}, names of classes)."""
  for name in _YAML:
    path = os.path.join(root, name)
    if os.path.exists(path):
      limit = policy._replace(max_record_bytes=yolo_text.MOST_YAML)
      found = yolo_text.settings(bounded.read_file(path, limit), path)
      splits = {}
      for key, split in _SPLITS.items():
        if found.get(key):
          splits[split] = _entries(root, path, key, found)
      return splits or _by_name(uri, root), yolo_text.names(found, path)
  names: tuple[str, ...] = ()
  for name in _CLASSES:
    path = os.path.join(root, name)
    if os.path.exists(path):
      lines = bounded.read_file(path, policy).decode("utf-8", "replace")
      listed = [line.strip() for line in lines.splitlines() if line.strip()]
      names = yolo_text.names({"names": listed}, path)
      break
  return _by_name(uri, root), names


def _entries(root: str, path: str, key: str, found: dict) -> list[str]:
  """The folders, or text files of paths, that data.yaml names for a split.

  Paths are written for the machine of their author: "../train/images" is found
  in DIR as well, and `path` counts only if it lies in DIR.
  """
  value = found[key]
  result = []
  for entry in value if isinstance(value, list) else [value]:
    if not isinstance(entry, str):
      kind = type(entry).__name__
      raise ValueError(f"{path}: {key}: expected a folder, not {kind}")
    base = found.get("path")
    wanted = [entry, f"{base}/{entry}" if isinstance(base, str) else entry]
    wanted.append(entry.removeprefix("./").removeprefix("../"))
    inner = [_inside(root, each) for each in wanted]
    there = [each for each in inner if each and os.path.exists(each)]
    if not there:
      raise ValueError(f"{path}: {key}: {entry[:80]!r} is not in {root}")
    result.append(there[0])
  return result


def _inside(root: str, name: object) -> str | None:
  if name == ".":
    return root
  try:
    return objects.inside(root, name)
  except ValueError:
    return None


def _by_name(uri: str, root: str) -> dict[str, list[str]]:
  """The folders of pictures by their names, without a data.yaml."""
  found: dict[str, list[str]] = {}
  for name, split in _SPLITS.items():
    for parts in ((_IMAGES, name), (name, _IMAGES), (name,)):
      folder = os.path.join(root, *parts)
      if os.path.isdir(folder):
        found.setdefault(split, []).append(folder)
        break
  if found:
    return found
  images = os.path.join(root, _IMAGES)
  folder = images if os.path.isdir(images) else root
  if next(_below(folder), None) is None:
    raise ValueError(
      f"{uri} has no pictures; valid: a data.yaml, images/train, train/images,"
      " or images, each beside labels"
    )
  return {"all": [folder]}


def _below(folder: str) -> Iterator[str]:
  """The pictures in a folder and below, or those that a text file lists."""
  valid = endings.images()
  if os.path.isfile(folder):
    lines = bounded.read_file(folder, Policy()).decode("utf-8", "replace")
    for line in filter(str.strip, lines.splitlines()):
      try:
        yield objects.inside(os.path.dirname(folder), line.strip())
      except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None
    return

  def unreadable(error: OSError) -> None:
    raise error

  for where, folders, files in os.walk(folder, onerror=unreadable):
    folders[:] = sorted(f for f in folders if not endings.hidden(f))
    for name in sorted(files):
      if name.lower().endswith(valid) and not endings.hidden(name):
        yield os.path.join(where, name)


def _labels(root: str, image: str) -> str:
  """The file of labels of a picture, whether it exists or not."""
  parts = os.path.splitext(os.path.relpath(image, root))[0].split(os.sep)
  places = [i for i, part in enumerate(parts[:-1]) if part == _IMAGES]
  if places:
    parts[places[-1]] = _LABELS
  return os.path.join(root, *parts) + ".txt"


def _missing(
  uri: str, root: str, folders: dict, files: dict, policy: Policy
) -> str:
  """Checks that labels and pictures belong together, and returns a note."""
  whole = [each for listed in files.values() for each in listed]
  if not whole:
    raise ValueError(f"{uri} has no pictures in {sorted(folders)}")
  there = {each.path for each in whole if os.path.exists(each.path)}
  if not there:
    raise ValueError(
      f"{uri} has no labels: the first is expected to be {whole[0].path}"
    )
  alone = []
  for folder in {os.path.dirname(path) for path in there}:
    for stem, path in partners.stems(folder, (".txt",)).items():
      if path not in there and f"{stem}.txt" not in _CLASSES:
        alone.append(f"{path} has no picture")
  note = partners.unmatched(uri, len(there), sorted(alone), policy)
  empty = len(whole) - len(there)
  if not empty:
    return note
  line = f"{uri}: {empty:,} of {len(whole):,} pictures have no file of labels"
  return f"{note}; {line}" if note else line


def _picture(
  each: _Labels, names: tuple[str, ...], given: objects.Rules, policy: Policy
) -> objects.Picture:
  """One picture; under "skip" a wrong one is reported when it is read."""
  if not os.path.exists(each.path):
    return objects.Picture(each.image, (1, 1))
  try:
    least = min(yolo_text.MOST_BYTES, policy.max_record_bytes)
    limit = policy._replace(max_record_bytes=least)
    rows = yolo_text.rows(bounded.read_file(each.path, limit), each.path)
    wrong = [row.number for row in rows if names and row.number >= len(names)]
    if wrong:
      raise ValueError(
        f"{each.path}: class {wrong[0]} is not one of the {len(names)} classes"
      )
    found = [
      objects.Object(
        names[row.number] if names else str(row.number),
        row.box,
        outline=row.outline,
      )
      for row in rows
    ]
    return objects.picture(each.image, (1, 1), found, given, each.path)
  except ValueError as error:
    if not policy.skip:
      raise
    return objects.Picture(each.image, error=str(error))
