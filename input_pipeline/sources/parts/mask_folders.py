"""Finds pictures and their masks in the layouts that `masks:` knows."""

import os
from collections.abc import Iterable
from typing import NamedTuple

from input_pipeline.bad_records import Policy
from input_pipeline.reading import endings
from input_pipeline.sources.parts import partners

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
_STREETS, _FINE = "leftImg8bit", "gtFine"


class Pair(NamedTuple):
  """A picture and its masks; several have one object each."""

  image: str
  masks: tuple[str, ...]
  single: bool = True  # whether one mask has all objects, or classes


def is_cityscapes(root: str) -> bool:
  """Whether a folder has the layout of Cityscapes."""
  return all(os.path.isdir(os.path.join(root, f)) for f in (_STREETS, _FINE))


def found(
  uri: str, root: str, instances: bool, policy: Policy
) -> tuple[dict[str, list[Pair]], str]:
  """Returns {split: pictures with masks}, and a note of those without.

  Args:
    uri: of the data.
    root: its folder.
    instances: whether the masks are of objects.
    policy: how large a share of pictures and masks may be left out.

  Raises:
    ValueError: there are none, or too many are left out.
    OSError: a folder cannot be read.
  """
  alone: list[str] = []
  if is_cityscapes(root):
    pairs = _cityscapes(root, instances, alone)
  else:
    pairs = _by_object(root, alone) if instances else {}
    pairs = pairs or {
      split: _of_names(*folders, instances, alone)
      for split, folders in _folders(root).items()
    }
  if not pairs:
    raise ValueError(
      f"{uri} has no folder of pictures beside one of masks; valid: train and"
      " trainannot, images and masks, train/images and train/masks, or"
      " images/train and masks/train"
    )
  matched = sum(map(len, pairs.values()))
  note = partners.unmatched(uri, matched, alone, policy)
  if not matched:
    raise ValueError(f"{uri} has no pictures with masks of the same name")
  return pairs, note


def _inner(path: str) -> dict[str, str]:
  """{name in lower case: path} of the folders in a folder, sorted."""
  with os.scandir(path) as entries:
    names = sorted(e.name for e in entries if e.is_dir())
  return {name.lower(): os.path.join(path, name) for name in names}


def _first(within: dict[str, str], names: Iterable[str]) -> str | None:
  return next((within[name] for name in names if name in within), None)


def _folders(root: str) -> dict[str, tuple[str, str]]:
  """Returns {split: (folder of pictures, folder of masks)}."""
  top, result = _inner(root), {}
  images, targets = _first(top, _IMAGES), _first(top, _MASKS)
  if images and targets:
    inner, beside = _inner(images), _inner(targets)
    for name in inner:
      if name in _SPLITS and name in beside:
        result[_SPLITS[name]] = inner[name], beside[name]
    return result or {"all": (images, targets)}
  for name, split in _SPLITS.items():
    if name not in top:
      continue
    beside = [f"{name}{s}{m}" for m in _MASKS for s in ("", "_", "-")]
    own, target = top[name], _first(top, beside)
    if target is None:
      within = _inner(own)
      own, target = _first(within, _IMAGES), _first(within, _MASKS)
    if own and target:
      result[split] = own, target
  return result


def _of_names(
  pictures: str, targets: str, instances: bool, alone: list[str]
) -> list[Pair]:
  """The pictures of a folder and the masks of their names in another.

  Of objects, the masks may also be the files in a folder of that name.
  """
  images = partners.stems(pictures, endings.images())
  labels = {
    stem: Pair("", (path,))
    for stem, path in partners.stems(targets, (".png",)).items()
  }
  if instances:
    with os.scandir(targets) as entries:
      inner = sorted(e.name for e in entries if e.is_dir())
    for name in inner:
      files = partners.stems(os.path.join(targets, name), (".png",))
      labels.setdefault(name, Pair("", tuple(files.values()), False))
  alone += [f"{images[s]} has no mask" for s in images if s not in labels]
  alone += [
    f"{each.masks[0] if each.masks else os.path.join(targets, s)} has no"
    " picture"
    for s, each in labels.items()
    if s not in images
  ]
  return [
    labels[stem]._replace(image=path)
    for stem, path in images.items()
    if stem in labels
  ]


def _by_object(root: str, alone: list[str]) -> dict[str, list[Pair]]:
  """NAME/images/*.png beside NAME/masks/*.png: a file for each object."""
  top = _inner(root)
  splits = {_SPLITS[n]: path for n, path in top.items() if n in _SPLITS}
  result = {}
  for split, folder in (splits or {"all": root}).items():
    pairs = []
    for path in _inner(folder).values():
      within = _inner(path)
      images, targets = _first(within, _IMAGES), _first(within, _MASKS)
      if not (images and targets):
        continue
      files = tuple(partners.stems(targets, (".png",)).values())
      pictures = list(partners.stems(images, endings.images()).values())
      if len(pictures) == 1:
        pairs.append(Pair(pictures[0], files, False))
      else:
        alone.append(f"{images} has {len(pictures)} pictures")
    if pairs:
      result[split] = pairs
  return result


def _cityscapes(
  root: str, instances: bool, alone: list[str]
) -> dict[str, list[Pair]]:
  """leftImg8bit/SPLIT/CITY/*.png beside gtFine/SPLIT/CITY/*.png."""
  kind = "instanceIds" if instances else "labelIds"
  result = {}
  for split, folder in _inner(os.path.join(root, _STREETS)).items():
    pairs = []
    for city, path in _inner(folder).items():
      beside = os.path.join(root, _FINE, split, city)
      there = partners.stems(beside, (".png",)) if os.path.isdir(beside) else {}
      for stem, image in partners.stems(path, (".png",)).items():
        mask = there.get(f"{stem.removesuffix(_STREETS)}{_FINE}_{kind}")
        if mask:
          pairs.append(Pair(image, (mask,)))
        else:
          alone.append(f"{image} has no mask")
    result[_SPLITS.get(split, split)] = pairs
  return result
