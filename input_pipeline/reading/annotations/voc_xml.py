"""Annotations of Pascal VOC: one XML file for each picture.

The development kit describes them: Everingham and Winn, The PASCAL Visual
Object Classes Challenge 2012 Development Kit, section 3.
"""

import xml.parsers.expat
from typing import NamedTuple

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
# The elements of a file within which text is read, and how deep they lie.
_DEPTH = 32
_MOST_TEXT = 10_000


class Object(NamedTuple):
  """One object of a picture.

  name: of its class.
  corners: xmin, ymin, xmax, ymax as they are written: pixels counted from 1,
    the last one included.
  difficult: whether it is marked as such.
  """

  name: str
  corners: tuple[float, float, float, float]
  difficult: bool


class Annotation(NamedTuple):
  """A file. width and height are 0 if it does not have them."""

  width: int
  height: int
  objects: tuple[Object, ...]


def parse(data: bytes, path: str) -> Annotation:
  """Returns the annotation in the bytes of a file.

  A document type is refused, and with it every entity, so that a small file
  cannot expand or read other files. The parts of an object, which have boxes of
  their own, are not read.

  Raises:
    ValueError: the file is not such an annotation; one line that names it.
  """
  size: dict[str, str] = {}
  objects: list[dict[str, str]] = []
  place: list[str] = []
  text: list[str] = []

  def refuse(*_) -> None:
    raise ValueError(f"{path}: has a document type, which is not read")

  def start(name: str, _) -> None:
    place.append(name)
    text.clear()
    if len(place) > _DEPTH:
      raise ValueError(f"{path}: elements lie more than {_DEPTH} deep")
    if place == ["annotation", "object"]:
      objects.append({})

  def end(_) -> None:
    value, at = "".join(text).strip(), tuple(place)
    if at[:2] == ("annotation", "size") and len(at) == 3:
      size.setdefault(at[2], value)
    elif at[:2] == ("annotation", "object") and len(at) == 3:
      objects[-1].setdefault(at[2], value)
    elif at[:3] == ("annotation", "object", "bndbox") and len(at) == 4:
      objects[-1].setdefault(at[3], value)
    place.pop()
    text.clear()

  def characters(found: str) -> None:
    if sum(map(len, text)) < _MOST_TEXT:
      text.append(found)

  parser = xml.parsers.expat.ParserCreate()
  parser.buffer_text = True
  parser.StartDoctypeDeclHandler = refuse
  parser.EntityDeclHandler = refuse
  parser.StartElementHandler = start
  parser.EndElementHandler = end
  parser.CharacterDataHandler = characters
  try:
    parser.Parse(data, True)
  except (xml.parsers.expat.ExpatError, LookupError) as error:
    raise ValueError(f"{path}: not readable as XML: {error}") from None
  except ValueError as error:  # Expat's, for some encodings, names no file.
    if str(error).startswith(path):
      raise
    raise ValueError(f"{path}: not readable as XML: {error}") from None
  width, height = (_side(size.get(k, ""), path) for k in ("width", "height"))
  return Annotation(width, height, tuple(_object(o, path) for o in objects))


def _side(value: str, path: str) -> int:
  number = _number(value or "0", "size", path)
  return int(number) if number > 0 else 0


def _object(found: dict[str, str], path: str) -> Object:
  if not found.get("name"):
    raise ValueError(f"{path}: an object has no name")
  missing = [key for key in _CORNERS if key not in found]
  if missing:
    raise ValueError(f"{path}: an object has no {missing[0]}")
  x0, y0, x1, y1 = (_number(found[key], key, path) for key in _CORNERS)
  difficult = found.get("difficult", "0").lower() in ("1", "true")
  return Object(found["name"], (x0, y0, x1, y1), difficult)


def _number(value: str, key: str, path: str) -> float:
  try:
    number = float(value)
  except ValueError:
    number = float("nan")
  if not abs(number) < 2**24:  # float32 counts pixels exactly below it
    raise ValueError(f"{path}: {key} is {value[:40]!r}, which is no pixel")
  return number
