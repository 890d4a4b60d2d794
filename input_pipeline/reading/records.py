"""Makes documents of records with named fields."""

import math
from typing import Any

from input_pipeline.document import Bad, Document
from input_pipeline.reading.streams import bad

# Deeper values might not be writable where the stack is already deep.
_DEEPEST = 64
# Columns that the error for a missing one lists.
_NAMED = 20


def document(
  name: str, record: dict[str, Any], text_key: str, table: bool = False
) -> Document | Bad:
  """A document of a record, with one field as its text.

  If `text_key` is empty, or the cell of a table is, the text is "".
  """
  for key, value in record.items():
    flaw = _flaw(key) or _flaw(value)
    if flaw:
      return bad(name, f"the field {key!a} {flaw}")
  if not text_key:
    return Document(name, "", record)
  if text_key not in record:
    there = f"; there are: {', '.join(list(record)[:_NAMED])}" if table else ""
    return bad(name, f"no field {text_key!r}{there}")
  text = record.pop(text_key)
  if text is None and table:
    text = ""
  if not isinstance(text, str):
    return bad(name, f"the field {text_key!r} is not text")
  return Document(name, text, record)


def _flaw(value: Any, depth: int = 0) -> str:
  """Why a value cannot be written as JSON in UTF-8; "" if it can."""
  if isinstance(value, str):
    if not value.isascii():
      try:
        value.encode()
      except UnicodeEncodeError:  # a lone surrogate, which JSON can escape
        return "is not Unicode text"
  elif isinstance(value, float):
    if not math.isfinite(value):
      return "is not finite"
  elif isinstance(value, (dict, list)):
    if depth == _DEEPEST:
      return "is nested too deeply"
    parts = [*value, *value.values()] if isinstance(value, dict) else value
    for part in parts:
      flaw = _flaw(part, depth + 1)
      if flaw:
        return flaw
  return ""
