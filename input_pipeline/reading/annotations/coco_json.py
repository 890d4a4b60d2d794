"""Annotations of COCO: one JSON file of pictures, objects and categories.

cocodataset.org/#format-data describes them. Only the fields that boxes, classes
and masks need are read.
"""

import json
from collections.abc import Hashable
from typing import Any, NamedTuple

from input_pipeline.bad_records import Policy
from input_pipeline.reading import bounded
from input_pipeline.reading.annotations import outlines

# Of a file of annotations; those of COCO's train2017 have 2**28.7 bytes.
MOST_BYTES = 2**31
_LISTS = ("images", "annotations", "categories")


class File(NamedTuple):
  """The lists of a file, whose elements are objects.

  names: {id of a category: its name}, in the order of the ids.
  """

  images: list[dict]
  annotations: list[dict]
  names: dict[Hashable, str]


class Annotation(NamedTuple):
  """One object; its box is (x0, y0, x1, y1) in pixels from 0."""

  category: Hashable
  box: tuple[float, float, float, float]
  crowd: bool
  outline: outlines.Outline | None


def load(path: str) -> File:
  """Reads a file of annotations.

  Raises:
    ValueError: it is not such a file; one line that names it.
  """
  data = bounded.read_file(path, Policy(max_record_bytes=MOST_BYTES))
  found = parse(data, path)
  for key in _LISTS:
    value = found.get(key)
    if not isinstance(value, list):
      missing = "has no list" if key not in found else "has no list in"
      raise ValueError(f"{path}: {missing} {key!r}, so it is no COCO file")
    if not all(isinstance(each, dict) for each in value):
      raise ValueError(f"{path}: {key} has an element that is no JSON object")
  return File(
    found["images"],
    found["annotations"],
    _categories(found["categories"], path),
  )


def parse(data: bytes, path: str) -> dict:
  """The JSON object in the bytes of a file; ValueError names the file."""
  try:
    found = json.loads(data)
  except RecursionError:
    raise ValueError(f"{path}: not readable as JSON: too deep") from None
  except ValueError as error:  # of UnicodeDecodeError and JSONDecodeError
    raise ValueError(f"{path}: not readable as JSON: {error}") from None
  if not isinstance(found, dict):
    raise ValueError(f"{path}: not a JSON object")
  return found


def identifier(value: Any) -> Hashable:
  """An id, an integer or a text; None for anything else."""
  return value if type(value) in (int, str) else None


def _categories(values: list[dict], path: str) -> dict[Hashable, str]:
  names: dict[Hashable, str] = {}
  for each in values:
    number, name = identifier(each.get("id")), each.get("name")
    if number is None or not isinstance(name, str) or not name.strip():
      raise ValueError(f"{path}: a category has no id or no name")
    if number in names:
      raise ValueError(f"{path}: two categories have the id {number!r}")
    names[number] = name.strip()
  # Numbers before texts, each in their order.
  ordered = sorted(names, key=lambda n: (isinstance(n, str), n))
  return {number: names[number] for number in ordered}


def size(image: dict) -> tuple[int, int]:
  """(width, height) of a picture; (0, 0) if the file does not have them.

  Raises:
    ValueError: they are not positive integers.
  """
  sides = image.get("width"), image.get("height")
  if sides == (None, None):
    return 0, 0
  numbers = all(type(n) in (int, float) and 0 < n < 2**24 for n in sides)
  if not numbers or any(n != int(n) for n in sides):
    raise ValueError(f"its size {_short(sides)} is not (width, height)")
  return int(sides[0]), int(sides[1])  # some programs write 640.0


def annotation(value: dict, masks: bool) -> Annotation:
  """One element of the list "annotations".

  Args:
    value: the element.
    masks: whether the outline is read as well.

  Raises:
    ValueError: its box or outline is malformed.
  """
  said = f"annotation {_short(value.get('id'))}"
  box = value.get("bbox")
  numbers = isinstance(box, list) and len(box) == 4
  if not numbers or not all(type(n) in (int, float) for n in box):
    raise ValueError(f"{said} has no bbox [x, y, width, height]")
  if not all(abs(n) < 2**24 for n in box):  # nor is NaN
    raise ValueError(f"{said}: {_short(box)} are no pixels")
  crowd = value.get("iscrowd", 0)
  if crowd not in (0, 1):
    raise ValueError(f"{said}: iscrowd={_short(crowd)} is not 0 or 1")
  outline = None
  if masks:
    try:
      outline = outlines.parsed(value.get("segmentation"))
    except ValueError as error:
      raise ValueError(f"{said}: {error}") from None
  x, y, width, height = box
  return Annotation(
    identifier(value.get("category_id")),
    (x, y, x + width, y + height),
    bool(crowd),
    outline,
  )


def _short(value: Any) -> str:
  return repr(value)[:60]
