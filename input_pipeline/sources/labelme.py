"""labelme:DIR: pictures with a JSON file of shapes each."""

import os

from input_pipeline.bad_records import Policy
from input_pipeline.reading import bounded, endings, image_size
from input_pipeline.reading.annotations import labelme_json
from input_pipeline.reading.paths import fingerprint
from input_pipeline.sources import Source
from input_pipeline.sources.parts import class_folders, objects, partners, query

_SETTINGS = objects.SETTINGS | objects.MASKS


def labelme(rest: str, policy: Policy = Policy()) -> dict[str, Source]:
  """labelme:DIR: the JSON files of LabelMe in a folder, and their pictures.

  {"image": the file's bytes, "boxes": float32 [n, 4], "classes": int32 [n],
  "crowd": int32 [n], all 0}. A box is (x0, y0, x1, y1) in pixels from the upper
  left corner of the picture, without its end: a rectangle, or the box around a
  polygon or a circle. Shapes of one label and group_id are one object; points,
  lines and other shapes without area are counted and left out.

  The picture is the file that imagePath names, which must lie in DIR, or the
  one of the annotation's own name beside it, or else the imageData within the
  annotation. Annotations without a picture are left out; more than
  `max_bad_share` of them are an error. Pictures without an annotation are not
  read. Folders train, val and test in DIR are splits; otherwise a tenth is held
  out. Settings follow "?", joined by "&":

  masks: true adds "instances", uint8 [n, height, width], the masks of the
    objects; it needs pycocotools (extra vision).
  classes, outside, empty: see voc:DIR; the default of classes is all labels,
    sorted.
  """
  root, settings = query.split(rest, "labelme", _SETTINGS)
  uri, root = f"labelme:{root}", os.path.expanduser(root)
  if not os.path.isdir(root):
    raise ValueError(f"{uri} is not a folder")
  try:
    roots, notes = class_folders.split_folders(root)
  except OSError as error:
    raise bounded.failure(error.filename, error) from None
  given = objects.rules(settings)
  found, files, lost = {}, [], []
  for split, folder in roots.items():
    paths = _below(folder)
    files += paths
    read = [_picture(root, path, given, policy, lost) for path in paths]
    found[split] = [each for each in read if each is not None]
  whole = [picture for each in found.values() for picture in each]
  notes.append(partners.unmatched(uri, len(whole), lost, policy))
  if not whole:
    raise ValueError(f"{uri} has no annotated picture")
  names = sorted({name for each in whole for name in each.names})
  if not names and not settings["classes"]:
    raise ValueError(f"{uri} has no box; ?classes=a,b names the classes")
  classes = objects.chosen(uri, names, settings["classes"])
  notes.append(objects.note(uri, whole, classes, given))
  note = "; ".join(each for each in notes if each)
  stamp = f"{fingerprint(files)} {settings}"
  return {
    split: objects.source(pictures, classes, given, policy)._replace(
      note=note, fingerprint=stamp
    )
    for split, pictures in found.items()
  }


def _below(folder: str) -> list[str]:
  """The JSON files in a folder and below, sorted."""

  def unreadable(error: OSError) -> None:
    raise bounded.failure(error.filename, error) from None

  found = []
  for where, folders, files in os.walk(folder, onerror=unreadable):
    folders[:] = sorted(f for f in folders if not endings.hidden(f))
    found += [
      os.path.join(where, name)
      for name in sorted(files)
      if name.lower().endswith(".json") and not endings.hidden(name)
    ]
  return found


def _picture(
  root: str, path: str, given: objects.Rules, policy: Policy, lost: list[str]
) -> objects.Picture | None:
  """One picture, or None, with a line in `lost`, if there is none.

  Under "skip" a wrong annotation is reported when it is read.
  """
  try:
    found = labelme_json.parse(bounded.read_file(path, policy), path)
    image = _image(root, path, found)
    if image is None and not found.embedded:
      lost.append(f"{path} has no picture")
      return None
    load = bounded.read_file if image else labelme_json.embedded
    image = image or path
    size = found.size
    if not all(size):
      size = image_size.image_size(load(image, policy))[:2]
    given.counts["points and lines left out"] += found.others
    shapes = [
      objects.Object(each.name, each.box, outline=each.outline)
      for each in found.shapes
    ]
    kept = objects.picture(image, size, shapes, given, path)
    return kept._replace(load=load)
  except ValueError as error:
    if not policy.skip:
      raise
    return objects.Picture(path, error=str(error))


def _image(root: str, path: str, found: labelme_json.File) -> str | None:
  """The file of the picture; None if there is none in the folder of the data.

  Raises:
    ValueError: imagePath names a file beyond the folder.
  """
  folder = os.path.dirname(path)
  if found.image:
    within = os.path.join(os.path.relpath(folder, root), found.image)
    try:
      image = objects.inside(root, within.replace("\\", "/"))
    except ValueError as error:
      raise ValueError(f"{path}: imagePath: {error}") from None
    if os.path.isfile(image):
      return image
  stem = os.path.splitext(path)[0]
  beside = (f"{stem}{ending}" for ending in endings.images())
  return next(filter(os.path.isfile, beside), None)
