"""masks:DIR: pictures with masks, of classes or of objects."""

import os

import numpy as np

from input_pipeline.bad_records import Policy, check_size
from input_pipeline.reading import bounded, image_size
from input_pipeline.reading import masks as masks_lib
from input_pipeline.reading.annotations import cityscapes
from input_pipeline.reading.paths import fingerprint
from input_pipeline.sources import Source
from input_pipeline.sources.parts import mask_folders, query
from input_pipeline.sources.parts.mask_folders import Pair

_SETTINGS = {
  "classes": ("",),
  "instances": ("false", "true"),
  "ids": ("file", "train"),
}
# The class of objects that have no other.
_THING = ("object",)


def masks(rest: str, policy: Policy = Policy()) -> dict[str, Source]:
  """masks:DIR: a folder of pictures and a folder of PNG masks of equal names.

  {"image": the file's bytes, "segmentation": the bytes of the mask}, which the
  op `decode_mask` decodes. The field is not called "mask", which in a batch
  marks the real examples.

  The folders lie in DIR as train and trainannot (also train_masks, val, test),
  images and masks, train/images and train/masks, or images/train and
  masks/train; masks may be called labels, annotations or instances. Folders
  that are not named after splits are one data set, of which a tenth is held
  out. Cityscapes is read as it is unpacked, leftImg8bit beside gtFine. Pictures
  without a mask, and the reverse, are counted in a note; more than
  `max_bad_share` of them are an error, as is a mask of another size than its
  picture. Settings follow "?", joined by "&":

  classes: sky,road names the classes in the order of their values in the masks;
    classes=11 is their number. Larger values are no class: tasks ignore them.
  ids: train maps the ids of Cityscapes to its 19 trained classes, and others to
    255; then "segmentation" is uint8 [h, w]. The default, file, keeps them.
  instances: true reads masks of objects, from one PNG of their numbers (0 is
    the background; in 8 bits 255 is ignored, unless it is the only number), or
    a PNG for each object in masks/NAME/, or NAME/images beside NAME/masks.
    {"image", "boxes": float32 [n, 4], "classes": int32 [n], "crowd": int32 [n],
    "instances": uint8 [n, h, w]}; all objects are of one class, which `classes`
    may name, but those of Cityscapes, which are of eight.
  """
  root, settings = query.split(rest, "masks", _SETTINGS)
  uri, root = f"masks:{root}", os.path.expanduser(root)
  if not os.path.isdir(root):
    raise ValueError(f"{uri} is not a folder")
  of_objects, streets = settings["instances"] == "true", settings["ids"]
  is_streets = mask_folders.is_cityscapes(root)
  if streets == "train" and (of_objects or not is_streets):
    raise ValueError(f"{uri}: ids=train is for the classes of Cityscapes")
  count, names = _classes(uri, settings["classes"])
  try:
    pairs, note = mask_folders.found(uri, root, of_objects, policy)
  except OSError as error:
    raise bounded.failure(error.filename, error) from None
  if is_streets:
    names = cityscapes.LABELS if streets == "file" else cityscapes.TRAINED
    names = cityscapes.THINGS if of_objects else names
    count = len(names)
  elif of_objects:
    names = names or _THING
    if len(names) > 1 or count not in (None, 1):
      raise ValueError(f"{uri}: instances=true has one class, not {count}")
    count = 1

  def source(found: list[Pair]) -> Source:
    if of_objects:
      return _objects(found, is_streets, policy)
    return _source(found, streets == "train", policy)

  return {
    split: source(found)._replace(
      num_classes=count, class_names=names, note=note
    )
    for split, found in pairs.items()
  }


def _classes(uri: str, given: str) -> tuple[int | None, tuple[str, ...] | None]:
  """Returns (the number of classes, their names), as far as they are given."""
  if not given:
    return None, None
  if given.isdecimal():
    if not 0 < int(given) < 2**16:
      raise ValueError(f"{uri}: classes={given} is not a number of classes")
    return int(given), None
  names = tuple(name.strip() for name in given.split(","))
  if not all(names) or len(set(names)) < len(names):
    raise ValueError(f"{uri}: classes={given!r} has an empty or repeated name")
  return len(names), names


def _source(files: list[Pair], trained: bool, policy: Policy) -> Source:
  def read(indices: np.ndarray) -> dict[str, np.ndarray]:
    rows = {
      k: np.empty(len(indices), object) for k in ("image", "segmentation")
    }
    for i, index in enumerate(indices):
      image, (mask,) = _bytes(files[index], policy)
      if trained:
        mask = cityscapes.trained(_decoded(mask, files[index].masks[0]))
      rows["image"][i], rows["segmentation"][i] = image, mask
    return rows

  found = _of_files(files, read)
  return found._replace(ragged={"segmentation": 2}) if trained else found


def _objects(files: list[Pair], streets: bool, policy: Policy) -> Source:
  fields = ("image", "boxes", "classes", "crowd", "instances")

  def read(indices: np.ndarray) -> dict[str, np.ndarray]:
    rows = {field: np.empty(len(indices), object) for field in fields}
    for i, index in enumerate(indices):
      found = _record(files[index], streets, policy)
      for field, value in zip(fields, found, strict=True):
        rows[field][i] = value
    return rows

  return _of_files(files, read)._replace(ragged={"instances": 3})


def _of_files(files: list[Pair], read) -> Source:
  paths = [path for each in files for path in (each.image, *each.masks)]
  return Source(
    len(files),
    read,
    lambda index: files[index].image,
    fingerprint=fingerprint(paths),
  )


def _bytes(pair: Pair, policy: Policy) -> tuple[bytes, list[bytes]]:
  """The bytes of a picture and of its masks, whose sizes are checked."""
  found = []
  for path in (pair.image, *pair.masks):
    data = bounded.read_file(path, policy)
    image_size.check_image(data, path, policy)
    found.append(data)
  for path, mask in zip(pair.masks, found[1:], strict=True):
    _check_sizes(found[0], mask, path)
  return found[0], found[1:]


def _decoded(mask: bytes, path: str) -> np.ndarray:
  try:
    return masks_lib.decode(mask)
  except ValueError as error:
    raise ValueError(f"{path}: {error}") from None


def _record(pair: Pair, streets: bool, policy: Policy) -> tuple:
  """(image, boxes, classes, crowd, instances) of a picture."""
  image, data = _bytes(pair, policy)
  width, height = image_size.image_size(image)[:2]
  what = f"{len(data):,} masks of {width:,} x {height:,} pixels, "
  check_size(len(data) * width * height, pair.image, policy, what)
  layers = [_decoded(m, p) for m, p in zip(data, pair.masks, strict=True)]
  if not pair.single:
    n = len(layers)
    kinds, groups = np.zeros(n, np.int32), np.zeros(n, np.int32)
    inside = [layer > 0 for layer in layers]
  elif streets:
    ids, kinds, groups = cityscapes.things(layers[0])
    inside = _each(layers[0], ids, pair.image, policy)
  else:
    ids = masks_lib.objects(data[0], layers[0])
    kinds, groups = [0] * len(ids), [0] * len(ids)
    inside = _each(layers[0], ids, pair.image, policy)
  found = np.zeros((len(inside), height, width), np.uint8)
  boxes = np.zeros((len(inside), 4), np.float32)
  for i, one in enumerate(inside):
    if not one.any():
      raise ValueError(f"{pair.masks[i]}: the mask has no pixel of an object")
    found[i] = one
    boxes[i] = masks_lib.box(one)
  return image, boxes, np.int32(kinds), np.int32(groups), found


def _each(ids: np.ndarray, numbers: list[int], name: str, policy: Policy):
  what = f"{len(numbers):,} masks of {ids.shape[1]} x {ids.shape[0]} pixels, "
  check_size(len(numbers) * ids.size, name, policy, what)
  return [ids == number for number in numbers]


def _check_sizes(image: bytes, mask: bytes, path: str) -> None:
  """Raises ValueError for a mask of another size than its picture."""
  one, other = (image_size.image_size(data)[:2] for data in (image, mask))
  if all((*one, *other)) and one != other:
    raise ValueError(f"{path}: the mask is {masks_lib.sizes(other, one)}")
