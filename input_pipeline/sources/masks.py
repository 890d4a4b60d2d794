"""masks:DIR: pictures with a mask each, of the classes of their pixels."""

import os

import numpy as np

from input_pipeline.bad_records import Policy
from input_pipeline.reading import bounded, endings, image_size
from input_pipeline.reading.paths import fingerprint
from input_pipeline.sources import Source
from input_pipeline.sources.parts import partners, query

# Names of splits, and the split that each means.
_SPLITS = {
  "train": "train",
  "training": "train",
  "val": "val",
  "valid": "val",
  "validation": "val",
  "test": "test",
  "testing": "test",
}
_IMAGES = ("images", "image", "imgs", "img")
# Names of folders of masks, and what follows the name of a split in them.
_MASKS = (
  "masks", "mask", "labels", "annotations", "annot", "annots", "instances",
)  # fmt: skip
_SETTINGS = {"classes": ("",)}


def masks(rest: str, policy: Policy = Policy()) -> dict[str, Source]:
  """masks:DIR: a folder of pictures and a folder of PNG masks of equal names.

  {"image": the file's bytes, "segmentation": the bytes of the mask}, which the
  op `decode_mask` decodes. The field is not called "mask", which in a batch
  marks the real examples.

  The folders lie in DIR as train and trainannot (also train_masks, val, test),
  images and masks, train/images and train/masks, or images/train and
  masks/train; masks may be called labels, annotations or instances. Folders
  that are not named after splits are one data set, of which a tenth is held
  out. Pictures without a mask, and the reverse, are counted in a note; more
  than `max_bad_share` of them are an error, as is a mask of another size than
  its picture.

  masks:DIR?classes=sky,road names the classes in the order of their values in
  the masks; ?classes=11 is their number. Larger values are no class: tasks
  ignore them.
  """
  root, settings = query.split(rest, "masks", _SETTINGS)
  uri, root = f"masks:{root}", os.path.expanduser(root)
  if not os.path.isdir(root):
    raise ValueError(f"{uri} is not a folder")
  try:
    pairs = _pairs(root)
  except OSError as error:
    raise bounded.failure(error.filename, error) from None
  if not pairs:
    raise ValueError(
      f"{uri} has no folder of pictures beside one of masks; valid: train and"
      " trainannot, images and masks, train/images and train/masks, or"
      " images/train and masks/train"
    )
  count, names = _classes(uri, settings["classes"])
  found, alone, matched = {}, [], 0
  for split, (pictures, targets) in pairs.items():
    images = partners.stems(pictures, endings.images())
    labels = partners.stems(targets, (".png",))
    both = [stem for stem in images if stem in labels]
    alone += [f"{images[s]} has no mask" for s in images if s not in labels]
    alone += [f"{labels[s]} has no picture" for s in labels if s not in images]
    matched += len(both)
    found[split] = [(images[stem], labels[stem]) for stem in both]
  note = partners.unmatched(uri, matched, alone, policy)
  if not matched:
    raise ValueError(f"{uri} has no pictures with masks of the same name")
  return {
    split: _source(files, policy)._replace(
      num_classes=count, class_names=names, note=note
    )
    for split, files in found.items()
  }


def _pairs(root: str) -> dict[str, tuple[str, str]]:
  """Returns {split: (folder of pictures, folder of masks)}."""

  def folders(path: str) -> dict[str, str]:
    with os.scandir(path) as entries:
      found = sorted(e.name for e in entries if e.is_dir())
    return {name.lower(): os.path.join(path, name) for name in found}

  def first(within: dict[str, str], names) -> str | None:
    return next((within[name] for name in names if name in within), None)

  top, found = folders(root), {}
  images, targets = first(top, _IMAGES), first(top, _MASKS)
  if images and targets:
    inner, beside = folders(images), folders(targets)
    for name in inner:
      if name in _SPLITS and name in beside:
        found[_SPLITS[name]] = inner[name], beside[name]
    return found or {"all": (images, targets)}
  for name, split in _SPLITS.items():
    if name not in top:
      continue
    beside = [f"{name}{s}{m}" for m in _MASKS for s in ("", "_", "-")]
    own, target = top[name], first(top, beside)
    if target is None:
      within = folders(own)
      own, target = first(within, _IMAGES), first(within, _MASKS)
    if own and target:
      found[split] = own, target
  return found


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


def _source(files: list[tuple[str, str]], policy: Policy) -> Source:
  def read(indices: np.ndarray) -> dict[str, np.ndarray]:
    rows = {
      k: np.empty(len(indices), object) for k in ("image", "segmentation")
    }
    for i, index in enumerate(indices):
      for field, path in zip(rows, files[index], strict=True):
        rows[field][i] = bounded.read_file(path, policy)
        image_size.check_image(rows[field][i], path, policy)
      _check_sizes(rows["image"][i], rows["segmentation"][i], files[index])
    return rows

  return Source(
    len(files),
    read,
    lambda index: files[index][0],
    fingerprint=fingerprint([path for pair in files for path in pair]),
  )


def _check_sizes(image: bytes, mask: bytes, paths: tuple[str, str]) -> None:
  """Raises ValueError for a mask of another size than its picture."""
  one, other = (image_size.image_size(data)[:2] for data in (image, mask))
  if all((*one, *other)) and one != other:
    raise ValueError(
      f"{paths[1]}: the mask is {other[0]} x {other[1]} and the picture"
      f" {one[0]} x {one[1]} pixels"
    )
