"""Pictures with objects: what the sources of boxes and classes share.

A box is (x0, y0, x1, y1) in pixels from the upper left corner of the picture,
without its end. Where the rules of a source are `relative`, it is in shares of
the sides of the picture until the picture is read.
"""

import collections
import os
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from input_pipeline.bad_records import Policy
from input_pipeline.reading import bounded, exif, image_size
from input_pipeline.reading.annotations import outlines
from input_pipeline.sources import Source

# Of every source of boxes; the first value is the default.
SETTINGS = {
  "outside": ("clip", "drop", "error"),
  "empty": ("drop", "error"),
  "classes": ("",),
}
MASKS = {"masks": ("false", "true")}
# Shares as most programs round them, and pixels that were added as floats.
_SLACK = {True: 1e-5, False: 1e-2}


class Object(NamedTuple):
  """An object.

  name: of its class.
  box: (x0, y0, x1, y1).
  flag: whether it is difficult, or a crowd.
  outline: for its mask, or None.
  said: how an error describes its box.
  """

  name: str
  box: tuple[float, float, float, float]
  flag: bool = False
  outline: outlines.Outline | None = None
  said: str = ""


class Picture(NamedTuple):
  """One picture and its objects; `error` is what is wrong with it, or "".

  size: (width, height), or (1, 1) where boxes are shares.
  load: (path, policy) -> the bytes of the image.
  """

  path: str
  size: tuple[int, int] = (0, 0)
  boxes: np.ndarray = np.zeros((0, 4), np.float32)
  names: tuple[str, ...] = ()
  flags: tuple[bool, ...] = ()
  shapes: tuple[outlines.Outline, ...] = ()
  error: str = ""
  load: Callable[[str, Policy], bytes] = bounded.read_file


class Rules(NamedTuple):
  """How a source treats objects.

  settings: its settings; see SETTINGS.
  counts: {what happened to boxes: their number}, which is added to.
  masks: whether objects have masks, and those without one are left out.
  flag: the name of the field of flags.
  exact: whether coordinates are integers, which no rounding moves outside.
  relative: whether boxes and outlines are shares of the sides of pictures.
  """

  settings: Mapping[str, str]
  counts: collections.Counter
  masks: bool = False
  flag: str = "crowd"
  exact: bool = False
  relative: bool = False


def rules(settings: Mapping[str, str], flag: str = "crowd") -> Rules:
  """The rules of the settings of a source."""
  wanted = settings.get("masks") == "true"
  if wanted:
    outlines.library()  # Its absence is reported before anything is read.
  return Rules(settings, collections.Counter(), wanted, flag)


def picture(
  path: str,
  size: tuple[int, int],
  found: Sequence[Object],
  given: Rules,
  where: str,
) -> Picture:
  """The picture with the objects that are kept; see `_placed`."""
  kept = []
  for each in found:
    if given.settings.get(given.flag) == "drop" and each.flag:
      given.counts[f"{given.flag} left out"] += 1
      continue
    box = _placed(each, size, given, where)
    if box is None:
      continue
    if given.masks and each.outline is None:
      given.counts["without mask left out"] += 1
      continue
    given.counts[given.flag] += each.flag
    kept.append((each, box))
  return Picture(
    path,
    size,
    np.array([box for _, box in kept], np.float32).reshape(-1, 4),
    tuple(each.name for each, _ in kept),
    tuple(each.flag for each, _ in kept),
    tuple(each.outline for each, _ in kept) if given.masks else (),
  )


def _placed(
  each: Object, size: tuple[int, int], given: Rules, where: str
) -> tuple[float, ...] | None:
  """Returns the box of an object, or None if it is left out.

  Raises:
    ValueError: the settings make the box an error; it names the file `where`.
  """
  (width, height), (x0, y0, x1, y1) = size, each.box
  settings, counts = given.settings, given.counts
  said = each.said or f"the box {x0:g}, {y0:g}, {x1:g}, {y1:g}"
  said = f"{said} of {each.name!r}" if not each.said else said
  # Annotators who click once leave a point, whose corners coincide.
  empty = x1 <= x0 or y1 <= y0
  slack = 0 if given.exact else _SLACK[given.relative]
  beyond = max(-x0, -y0, x1 - width, y1 - height)
  if not empty and beyond > 0:
    if beyond > slack and settings["outside"] == "error":
      pixels = f" of {width} x {height} pixels" if not given.relative else ""
      raise ValueError(
        f"{where}: {said} reaches beyond the picture{pixels};"
        " ?outside=clip or drop admits it"
      )
    if beyond > slack and settings["outside"] == "drop":
      counts["beyond their pictures left out"] += 1
      return None
    x0, x1 = max(x0, 0), min(x1, width)
    y0, y1 = max(y0, 0), min(y1, height)
    empty = x1 <= x0 or y1 <= y0
    counts["beyond their pictures clipped"] += beyond > slack and not empty
  if empty:
    if settings["empty"] == "error":
      raise ValueError(
        f"{where}: {said} has no area in the picture; ?empty=drop leaves it out"
      )
    counts["without area left out"] += 1
    return None
  return x0, y0, x1, y1


def inside(folder: str, name: object) -> str:
  """The path of a file that data names, which must lie in a folder.

  Raises:
    ValueError: the name is no relative path within the folder.
  """
  if not isinstance(name, str):  # YAML may hold lists of lists without end
    raise ValueError(f"expected the name of a file, not {type(name).__name__}")
  if not name.strip("/. ") or "\0" in name:
    raise ValueError(f"{name[:80]!r} is not the name of a file")
  plain = os.path.normpath(name.replace("\\", "/"))
  if os.path.isabs(plain) or plain.split(os.sep)[0] in ("..", "~"):
    raise ValueError(f"{name[:80]!r} leaves the folder of the data")
  if len(plain) > 1 and plain[1] == ":":  # C:\ on other machines
    raise ValueError(f"{name[:80]!r} leaves the folder of the data")
  return os.path.join(folder, plain)


def chosen(
  uri: str, valid: Sequence[str], given: str, found: Sequence[str] = ()
) -> tuple[str, ...]:
  """Returns the names of the classes in the order of their numbers.

  Args:
    uri: of the data.
    valid: all classes of the data, in their order.
    given: names in another order, separated by commas; "" is all of them.
    found: those that objects have, if the others are an error.

  Raises:
    ValueError: a name is empty or repeated, or none of them is valid.
  """
  if not given:
    return tuple(valid)
  names = tuple(name.strip() for name in given.split(","))
  if len(set(names)) < len(names) or not all(names):
    raise ValueError(f"{uri}: classes={given!r} has an empty or repeated name")
  known = found or valid
  if known and not any(name in known for name in names):
    raise ValueError(
      f"{uri}: no box of classes={given!r} (there are: {', '.join(known)})"
    )
  return names


def note(
  uri: str, pictures: Sequence[Picture], classes: Sequence[str], given: Rules
) -> str:
  """A line with the number of boxes and what was left out, or ""."""
  known, counts = set(classes), given.counts
  used = sum(name in known for each in pictures for name in each.names)
  whole = sum(len(each.names) for each in pictures)
  counts["of other classes left out"] = whole - used
  counted = [f"{n:,} {what}" for what, n in sorted(counts.items()) if n]
  return f"{uri}: {used:,} boxes; {', '.join(counted)}" if counted else ""


def source(
  pictures: Sequence[Picture],
  classes: tuple[str, ...],
  given: Rules,
  policy: Policy,
) -> Source:
  """The source of pictures: image, boxes, classes, the flag, and instances."""
  numbers = {name: i for i, name in enumerate(classes)}
  fields = ["image", "boxes", "classes", given.flag]
  fields += ["instances"] if given.masks else []

  def read(indices: np.ndarray) -> dict[str, np.ndarray]:
    rows = {field: np.empty(len(indices), object) for field in fields}
    for i, index in enumerate(indices):
      found = _record(pictures[index], numbers, given, policy)
      for field, value in zip(fields, found, strict=True):
        rows[field][i] = value
    return rows

  return Source(
    len(pictures),
    read,
    lambda index: pictures[index].path,
    num_classes=len(classes),
    class_names=classes,
    ragged={"instances": 3} if given.masks else {},
    changed={k: n for k, n in given.counts.items() if n and k != given.flag},
  )


def _record(
  found: Picture, numbers: Mapping[str, int], given: Rules, policy: Policy
) -> list:
  """[image, boxes, classes, flags] of a picture, and its masks if asked for."""
  path, boxes = found.path, found.boxes
  if found.error:
    raise ValueError(f"{path}: {found.error}")
  image = found.load(path, policy)
  image_size.check_image(image, path, policy)
  size = image_size.image_size(image)[:2]
  if any(size) and not given.relative and size != found.size:
    turned = size == found.size[::-1] and exif.orientation(image) > 4
    raise ValueError(
      f"{path}: the picture is {size[0]} x {size[1]} and its annotation"
      f" {found.size[0]} x {found.size[1]} pixels"
      + ("; its EXIF orientation turns it: store it upright" * turned)
    )
  if given.relative:
    if not all(size):
      raise ValueError(f"{path}: not an image whose size is known")
    boxes = boxes * np.array([*size, *size], np.float32)
  own = [i for i, name in enumerate(found.names) if name in numbers]
  record = [
    image,
    boxes[own],
    np.array([numbers[found.names[i]] for i in own], np.int32),
    np.array([found.flags[i] for i in own], np.int32),
  ]
  if given.masks:
    drawn = [found.shapes[i] for i in own]
    if given.relative:
      drawn = [_scaled(outline, size) for outline in drawn]
    size = size if given.relative else found.size
    record.append(outlines.masks(drawn, size, path, policy))
  return record


def _scaled(outline: outlines.Polygons, size: tuple[int, int]):
  return outlines.Polygons(
    tuple(
      (part.reshape(-1, 2) * np.array(size)).reshape(-1)
      for part in outline.parts
    )
  )
