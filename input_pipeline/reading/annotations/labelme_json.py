"""Annotations of LabelMe: a JSON file for each picture."""

import base64
import binascii
import math
from typing import Any, NamedTuple

import numpy as np

from input_pipeline.bad_records import Policy, check_size
from input_pipeline.reading import bounded
from input_pipeline.reading.annotations import coco_json, outlines

# The points of the polygon that stands for a circle.
_CORNERS = 64


class Shape(NamedTuple):
  """One object; box is (x0, y0, x1, y1) in pixels from 0."""

  name: str
  box: tuple[float, float, float, float]
  outline: outlines.Polygons | None


class File(NamedTuple):
  """A file.

  image: the path of the picture as it is written, or "".
  size: (width, height); zeros if unknown.
  embedded: whether the file holds the picture itself.
  shapes: of polygons, rectangles and circles.
  others: the number of shapes without area, such as points and lines.
  """

  image: str
  size: tuple[int, int]
  embedded: bool
  shapes: tuple[Shape, ...]
  others: int


def parse(data: bytes, path: str) -> File:
  """The annotation in the bytes of a file; ValueError names the file."""
  found = coco_json.parse(data, path)
  shapes = found.get("shapes")
  if not isinstance(shapes, list):
    raise ValueError(f"{path}: has no list 'shapes', so it is no LabelMe file")
  image = found.get("imagePath")
  try:
    size = coco_json.size(
      {"width": found.get("imageWidth"), "height": found.get("imageHeight")}
    )
    parts, others = _parts(shapes)
  except ValueError as error:
    raise ValueError(f"{path}: {error}") from None
  return File(
    image if isinstance(image, str) else "",
    size,
    bool(found.get("imageData")),
    tuple(_joined(name, each) for (name, _), each in parts.items()),
    others,
  )


def _parts(shapes: list) -> tuple[dict, int]:
  """({(name, group): polygons}, the number of shapes without area).

  Shapes of one name and group_id are parts of one object.
  """
  parts: dict[tuple, list[np.ndarray]] = {}
  others = 0
  for i, shape in enumerate(shapes):
    if not isinstance(shape, dict):
      raise ValueError(f"shape {i} is no JSON object")
    name, group = shape.get("label"), shape.get("group_id")
    if not isinstance(name, str) or not name.strip():
      raise ValueError(f"shape {i} has no label")
    polygon = _polygon(shape, i)
    if polygon is None:
      others += 1
      continue
    key = coco_json.identifier(group)
    # Shapes without a group are objects of their own.
    key = ("alone", i) if key is None else ("group", key)
    parts.setdefault((name.strip(), key), []).append(polygon)
  return parts, others


def _polygon(shape: dict, i: int) -> np.ndarray | None:
  """The points of a shape, float64 [k, 2]; None if it has no area."""
  kind = shape.get("shape_type") or "polygon"
  if kind not in ("polygon", "rectangle", "circle"):
    return None
  points = shape.get("points")
  pairs = isinstance(points, list) and all(
    isinstance(p, list)
    and len(p) == 2
    and all(type(n) in (int, float) for n in p)
    for p in points
  )
  if not pairs:
    raise ValueError(f"the points of shape {i} are not [[x, y], …]")
  if not all(abs(n) < 2**24 for p in points for n in p):  # nor is NaN
    raise ValueError(f"shape {i} has a point that is no pixel")
  found = np.array(points, np.float64).reshape(-1, 2)
  if kind == "circle" and len(found) == 2:
    radius = math.hypot(*(found[1] - found[0]))
    angles = np.arange(_CORNERS) * (2 * math.pi / _CORNERS)
    unit = np.stack([np.cos(angles), np.sin(angles)], 1)
    return found[0] + radius * unit
  if kind == "rectangle" and len(found) == 2:
    (x0, y0), (x1, y1) = found.min(0), found.max(0)
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
  return found if len(found) >= 3 else None


def _joined(name: str, parts: list[np.ndarray]) -> Shape:
  outline = outlines.Polygons(tuple(part.reshape(-1) for part in parts))
  return Shape(name, outlines.box_of(outline), outline)


def embedded(path: str, policy: Policy) -> bytes:
  """The picture within a file, of at most `max_record_bytes`.

  Raises:
    ValueError: the file holds no picture in base 64, or too large a one.
  """
  data = coco_json.parse(bounded.read_file(path, policy), path)
  found: Any = data.get("imageData")
  if not isinstance(found, str):
    raise ValueError(f"{path}: imageData is no text")
  check_size(len(found) * 3 // 4, path, policy, "imageData, ")
  try:
    return base64.b64decode(found, validate=True)
  except (binascii.Error, ValueError):
    raise ValueError(f"{path}: imageData is not base 64") from None
