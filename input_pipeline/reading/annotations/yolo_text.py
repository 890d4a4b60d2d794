"""Labels of YOLO: a text file for each picture, and a data.yaml for all.

A row is a class and the centre, width and height of a box, or the points of a
polygon, in shares of the sides of the picture.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from input_pipeline.reading.annotations import outlines

# Of the rows of one picture, and of data.yaml.
MOST_BYTES, MOST_YAML = 2**24, 2**20
# Shares beyond this are pixels.
_FAR = 2.0
_MOST_CLASSES = 2**16


class Row(NamedTuple):
  """One object; box is (x0, y0, x1, y1) in shares of the picture's sides."""

  number: int
  box: tuple[float, float, float, float]
  outline: outlines.Polygons | None


def rows(data: bytes, path: str) -> list[Row]:
  """The rows of a file of labels.

  Raises:
    ValueError: a row is malformed; one line that names the file and the row.
  """
  try:
    lines = data.decode("utf-8-sig").splitlines()
  except UnicodeDecodeError:
    raise ValueError(f"{path} is not UTF-8") from None
  found = []
  for i, line in enumerate(lines, 1):
    if line.strip():
      try:
        found.append(_row(line.split()))
      except ValueError as error:
        raise ValueError(f"{path}: row {i}: {error}") from None
  return found


def _row(words: list[str]) -> Row:
  try:
    numbers = [float(word) for word in words]
  except ValueError:
    raise ValueError(f"{' '.join(words)[:60]!r} is not numbers") from None
  number, places = numbers[0], numbers[1:]
  if not (number >= 0 and number < _MOST_CLASSES and number == int(number)):
    raise ValueError(f"{words[0][:20]!r} is not the number of a class")
  if len(places) != 4 and (len(places) < 6 or len(places) % 2):
    raise ValueError(
      f"{len(words)} numbers are neither a class and a box (5), nor a class and"
      " the points of a polygon (7, 9, …)"
    )
  far = [p for p in places if not (math.isfinite(p) and abs(p) <= _FAR)]
  if far:
    raise ValueError(f"{far[0]:g} is not a share of the side of the picture")
  if len(places) == 4:
    x, y, width, height = places
    half_width, half_height = width / 2, height / 2
    box = (x - half_width, y - half_height, x + half_width, y + half_height)
    return Row(int(number), box, None)
  outline = outlines.Polygons((np.array(places),))
  return Row(int(number), outlines.box_of(outline), outline)


def settings(data: bytes, path: str) -> dict[str, Any]:
  """The mapping of a data.yaml; ValueError if it is none."""
  try:
    import yaml
  except ImportError:
    raise ValueError(
      f"{path}: YAML needs PyYAML, which is not installed: pip install -e"
      " '.[vision]'"
    ) from None
  try:
    found = yaml.safe_load(data)
  except (yaml.YAMLError, ValueError, RecursionError) as error:
    said = (str(error).splitlines() or ["malformed"])[0]
    raise ValueError(f"{path}: not readable as YAML: {said}") from None
  if not isinstance(found, dict):
    raise ValueError(f"{path}: not a mapping with train, val and names")
  return found


def names(found: dict[str, Any], path: str) -> tuple[str, ...]:
  """The names of the classes, in their order; () if the mapping has none.

  Raises:
    ValueError: they are neither a list nor numbered from 0.
  """
  value = found.get("names")
  if value is None:
    return ()
  if isinstance(value, dict):
    if sorted(map(str, value)) != sorted(map(str, range(len(value)))):
      raise ValueError(f"{path}: the keys of names are not 0, 1, …")
    value = [value[key] for key in sorted(value, key=int)]
  plain = isinstance(value, list) and all(
    isinstance(name, (str, int, float)) and str(name).strip() for name in value
  )
  if not plain or len(value) > _MOST_CLASSES:
    raise ValueError(f"{path}: names is not a list of the names of classes")
  named = tuple(str(name).strip() for name in value)
  if len(set(named)) < len(named):
    raise ValueError(f"{path}: names has a repeated name")
  return named
