"""Records as a folder: predictions.json, and a PNG for each picture."""

import json
import os
from collections.abc import Iterable, Iterator
from typing import Any

from common import files
from train.prediction import Picture, Rendering
from train.prediction.parts import drawing

NAME = "predictions.json"
# The key of a record's only picture, whose file has the name of the record.
_ALONE = "picture"


def without_pictures(records: Iterable[dict]) -> Iterator[dict[str, Any]]:
  """Yields the records without their Pictures."""
  for record in records:
    yield {k: v for k, v in record.items() if not isinstance(v, Picture)}


def write(records: Iterable[dict], rendering: Rendering, folder: str) -> int:
  """Writes records into a folder, and returns their number.

  Each Picture becomes a file STEM_KEY.png, where STEM is that of the record's
  file. predictions.json, written last, is a list of what `rendering.entries`
  makes of each record, with "file_name", the path below the folder that all
  records share, in place of "record".

  Raises:
    OSError: a file cannot be written.
  """
  found: list[dict] = []
  used: set[str] = set()
  number = 0
  for number, record in enumerate(records, 1):
    stem = _stem(record["record"], used)
    for key, value in list(record.items()):
      if isinstance(value, Picture):
        name = f"{stem}.png" if key == _ALONE else f"{stem}_{key}.png"
        try:
          content = drawing.png(value.pixels())
        except ValueError:  # only what is drawn on reads the file again
          record[key] = None
          continue
        files.write_atomically(os.path.join(folder, name), [content])
        record[key] = name
    found += rendering.entries(number, record)
  shared = _shared([entry["record"] for entry in found])
  lines = (
    json.dumps(_named(entry, shared), ensure_ascii=False) for entry in found
  )
  content = ",\n".join(lines) + "\n" * bool(found)
  files.write_atomically(
    os.path.join(folder, NAME),
    [f"[\n{content}]\n".encode(errors="backslashreplace")],
  )
  return number


def _stem(record: str, used: set[str]) -> str:
  """A name for the files of a record that no other record has."""
  stem = os.path.splitext(os.path.basename(record))[0] or "record"
  stem = "".join(
    c if c.isprintable() and c not in ':*?"<>|' else "_" for c in stem
  )
  name, count = stem, 1
  while name.lower() in used:
    count += 1
    name = f"{stem}_{count}"
  used.add(name.lower())
  return name


def _shared(records: list[str]) -> str | None:
  """The folder that all files lie below; None if they are no files."""
  if not records or not all(os.path.isabs(each) for each in records):
    return None
  return os.path.commonpath([os.path.dirname(each) for each in records])


def _named(entry: dict, shared: str | None) -> dict:
  rest = {k: v for k, v in entry.items() if k != "record"}
  name = entry["record"]
  if shared is not None:
    name = os.path.relpath(name, shared)
  if "image_id" in rest:
    return {"image_id": rest.pop("image_id"), "file_name": name, **rest}
  return {"file_name": name, **rest}
