"""coco:FILE.json and coco:DIR: pictures with boxes and masks, as in COCO."""

import os
import re
from collections.abc import Sequence
from typing import NamedTuple

from input_pipeline.bad_records import Policy
from input_pipeline.reading import bounded, image_size
from input_pipeline.reading.annotations import coco_json
from input_pipeline.reading.paths import fingerprint
from input_pipeline.sources import Source
from input_pipeline.sources.parts import objects, partners, query

_SETTINGS = (
  objects.SETTINGS
  | objects.MASKS
  | {"images": ("",), "crowd": ("keep", "drop")}
)
# instances_train2017.json, train.json: the split and the year.
_FILE = re.compile(
  r"(?:instances_)?(train|val|valid|validation|test)(\d*)\.json"
)
_SPLITS = {"valid": "val", "validation": "val"}
_EXPORTED = "_annotations.coco.json"
# The pictures by which their folder is found.
_FEW = 20


class _Part(NamedTuple):
  """A file of annotations, and the folders where its pictures may be."""

  path: str
  folders: tuple[str, ...]


def coco(rest: str, policy: Policy = Policy()) -> dict[str, Source]:
  """coco:FILE.json: the pictures and objects of one file of annotations.

  coco:DIR reads DIR/annotations/instances_{train,val,test}YEAR.json, or
  DIR/{train,valid,test}/_annotations.coco.json, as splits.

  {"image": the file's bytes, "boxes": float32 [n, 4], "classes": int32 [n],
  "crowd": int32 [n]}. A box is (x0, y0, x1, y1) in pixels from the upper left
  corner of the picture, without its end. The categories, sorted by their ids,
  are the classes 0, 1, …; categories of the same name are one class. A picture
  without objects is an example with n = 0.

  A note counts the boxes that are changed or left out. Pictures whose file is
  missing, and objects of unknown pictures or categories, are left out; more
  than `max_bad_share` of them are an error. Settings follow "?", joined by "&":

  images: the folder of the pictures. The default is the first of those beside
    the file that holds some of them, such as train2017 or images.
  masks: true adds "instances", uint8 [n, height, width], the mask of each
    object, from polygons and both run-length encodings. It needs pycocotools
    (extra vision). Objects without a mask are left out.
  crowd: keep (the default) or drop the objects marked as crowds.
  classes, outside, empty: see voc:DIR; the default of classes is all
    categories.
  """
  root, settings = query.split(rest, "coco", _SETTINGS)
  uri, root = f"coco:{root}", os.path.expanduser(root)
  parts = _parts(uri, root, os.path.expanduser(settings["images"]))
  given = objects.rules(settings)
  files, names, found, notes = {}, {}, {}, []
  for split, part in parts.items():
    files[split] = coco_json.load(part.path)
    for number, name in files[split].names.items():
      if names.setdefault(number, name) != name:
        raise ValueError(
          f"{uri}: category {number} is {names[number]!r} in one file and"
          f" {name!r} in another"
        )
  for split, part in parts.items():
    file = files.pop(split)  # and with it the memory of the JSON
    found[split] = _pictures(uri, part, file, given, policy, notes)
  distinct = list(dict.fromkeys(names.values()))
  if len(distinct) < len(names):
    notes.append(f"{uri}: categories of the same name are one class")
  classes = objects.chosen(uri, distinct, settings["classes"])
  whole = [picture for each in found.values() for picture in each]
  notes.append(objects.note(uri, whole, classes, given))
  note = "; ".join(each for each in notes if each)
  stamp = f"{fingerprint([part.path for part in parts.values()])} {settings}"
  return {
    split: objects.source(pictures, classes, given, policy)._replace(
      note=note, fingerprint=stamp
    )
    for split, pictures in found.items()
  }


def _parts(uri: str, root: str, images: str) -> dict[str, _Part]:
  """Returns {split: its file}; a file alone is the split "all"."""
  if os.path.isfile(root):
    folder, name = os.path.split(root)
    match = _FILE.fullmatch(name)
    stem = "".join(match.groups()) if match else ""
    above = os.path.join(folder, os.pardir)
    beside = _beside([above, folder], [stem] if stem else [])
    return {"all": _Part(root, (images,) if images else beside)}
  if not os.path.isdir(root):
    raise ValueError(f"{uri} is not a file or folder")
  found: dict[str, _Part] = {}
  folder = os.path.join(root, "annotations")
  try:
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    exported = sorted(os.listdir(root))
  except OSError as error:
    raise bounded.failure(error.filename, error) from None
  for name in names:
    if match := _FILE.fullmatch(name):
      split, year = match.groups()
      split = _SPLITS.get(split, split)
      if split in found:
        raise ValueError(
          f"{uri} has two files of annotations for {split};"
          f" coco:{os.path.join(root, 'annotations', name)} reads one of them"
        )
      bases = [images, os.path.join(root, images), root] if images else [root]
      stems = list(dict.fromkeys((f"{match[1]}{year}", match[1])))
      found[split] = _Part(os.path.join(folder, name), _beside(bases, stems))
  for name in exported if not found else ():
    path = os.path.join(root, name, _EXPORTED)
    if os.path.isfile(path):
      folders = (images,) if images else (os.path.join(root, name),)
      found[_SPLITS.get(name, name)] = _Part(path, folders)
  if not found:
    raise ValueError(
      f"{uri} has no annotations/instances_*.json; name a file as"
      " coco:FILE.json?images=DIR"
    )
  return found


def _beside(bases: Sequence[str], stems: Sequence[str]) -> tuple[str, ...]:
  """The folders in which the pictures of a split may be, the likely first."""
  found = []
  for base in bases:
    inner = os.path.join(base, "images")
    found += [os.path.join(b, s) for s in stems for b in (base, inner)]
    found += [inner, base]
  return tuple(dict.fromkeys(map(os.path.normpath, found)))


def _pictures(
  uri: str,
  part: _Part,
  file: coco_json.File,
  given: objects.Rules,
  policy: Policy,
  notes: list[str],
) -> list[objects.Picture]:
  """Returns the pictures of a file, in its order."""
  images = {}
  for each in file.images:
    number = coco_json.identifier(each.get("id"))
    if number is None or number in images:
      raise ValueError(f"{part.path}: a picture has no id, or that of another")
    images[number] = each
  own: dict = {number: [] for number in images}
  lost = []
  for each in file.annotations:
    number = coco_json.identifier(each.get("image_id"))
    category = coco_json.identifier(each.get("category_id"))
    if number not in own:
      lost.append(f"annotation {each.get('id')!r} is of no picture"[:80])
    elif category not in file.names:
      lost.append(f"annotation {each.get('id')!r} is of no category"[:80])
    else:
      own[number].append(each)
  whole = len(file.annotations) - len(lost)
  notes.append(partners.unmatched(part.path, whole, lost, policy))
  paths = _paths(uri, part, images, policy)
  missing = [f"{p} is missing" for p in paths.values() if not os.path.exists(p)]
  kept = (
    {n: p for n, p in paths.items() if os.path.exists(p)}
    if missing
    else (paths)
  )
  notes.append(partners.unmatched(part.path, len(kept), missing, policy))
  return [
    _picture(part.path, images[n], path, own[n], file.names, given, policy)
    for n, path in kept.items()
  ]


def _paths(uri: str, part: _Part, images: dict, policy: Policy) -> dict:
  """Returns {id: path} of the pictures, in the first folder that has some.

  Raises:
    ValueError: no folder has one of the first few, or a name is no file in it.
  """
  names = {number: each.get("file_name") for number, each in images.items()}
  few = list(names.values())[:_FEW]
  for name in names.values():
    try:
      objects.inside("", name)
    except ValueError as error:
      raise ValueError(f"{part.path}: file_name: {error}") from None
  for folder in part.folders:
    if any(os.path.exists(objects.inside(folder, name)) for name in few):
      return {n: objects.inside(folder, name) for n, name in names.items()}
  if not names:
    raise ValueError(f"{part.path}: lists no picture")
  raise ValueError(
    f"{uri}: {few[0]!r} and others are not in"
    f" {', '.join(part.folders[:3])}; ?images=DIR names the folder"
  )


def _picture(
  where: str,
  image: dict,
  path: str,
  annotations: list[dict],
  names: dict,
  given: objects.Rules,
  policy: Policy,
) -> objects.Picture:
  """One picture; under "skip" a wrong one is reported when it is read."""
  try:
    size = coco_json.size(image)
    if not all(size):
      size = image_size.image_size(bounded.read_file(path, policy))[:2]
    read = [coco_json.annotation(each, given.masks) for each in annotations]
    found = [
      objects.Object(names[each.category], each.box, each.crowd, each.outline)
      for each in read
    ]
    return objects.picture(path, size, found, given, where)
  except ValueError as error:
    line = str(error)
    line = line if line.startswith(where) else f"{where}: {line}"
    if not policy.skip:
      raise ValueError(line) from None
    return objects.Picture(path, error=line)
