"""voc:DIR: pictures with boxes, as Pascal VOC stores them."""

import os

from input_pipeline.bad_records import Policy
from input_pipeline.reading import bounded, endings, image_size
from input_pipeline.reading.annotations import voc_xml
from input_pipeline.reading.paths import fingerprint
from input_pipeline.sources import Source
from input_pipeline.sources.parts import objects, partners, query

_SPLITS = ("train", "val", "test", "trainval")
_SETTINGS = objects.SETTINGS | {"difficult": ("keep", "drop")}
# Of an XML file.
_MOST_BYTES = 2**24


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
  given = objects.rules(settings, "difficult")._replace(exact=True)
  pictures = {
    stem: _picture(files[stem], images[stem], given, policy) for stem in stems
  }
  found = sorted({n for each in pictures.values() for n in each.names})
  if not found and not settings["classes"]:
    raise ValueError(f"{uri} has no box; ?classes=a,b names the classes")
  classes = objects.chosen(uri, found, settings["classes"])
  notes.append(objects.note(uri, list(pictures.values()), classes, given))
  splits, note = _splits(uri, root, stems, policy)
  note = "; ".join(each for each in [*notes, note] if each)
  stamp = f"{fingerprint(list(files.values()))} {settings}"
  return {
    name: objects.source(
      [pictures[stem] for stem in listed], classes, given, policy
    )._replace(note=note, fingerprint=stamp)
    for name, listed in splits.items()
  }


def _picture(
  path: str, image: str, given: objects.Rules, policy: Policy
) -> objects.Picture:
  """Reads an annotation; under "skip" a wrong one is reported when it is read.

  Args:
    path: of the XML file.
    image: the path of the picture.
    given: the rules of the source.
    policy: of bad records.
  """
  try:
    least = min(_MOST_BYTES, policy.max_record_bytes)
    data = bounded.read_file(path, policy._replace(max_record_bytes=least))
    found = voc_xml.parse(data, path)
    size = found.width, found.height
    if not all(size):
      size = image_size.image_size(bounded.read_file(image, policy))[:2]
    return objects.picture(
      image, size, [_object(each) for each in found.objects], given, path
    )
  except ValueError as error:
    if not policy.skip:
      raise
    return objects.Picture(image, error=str(error))


def _object(each: voc_xml.Object) -> objects.Object:
  """An object, whose corners are pixels from 1, the last one included."""
  xmin, ymin, xmax, ymax = each.corners
  said = f"the box of {each.name!r} at {xmin:g}, {ymin:g}, {xmax:g}, {ymax:g}"
  # A point is empty, although it would cover the pixel that it lies in.
  x0, y0 = (xmin - 1, ymin - 1) if xmax > xmin and ymax > ymin else (xmax, ymax)
  box = (x0, y0, xmax, ymax)
  return objects.Object(each.name, box, each.difficult, said=said)


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
