"""A record of named values as a document."""

import math
from typing import Any

from input_pipeline.document import Bad, Document
from input_pipeline.reading.streams import bad

# Deeper values could not be written again where the stack is deep already.
_DEEPEST = 64
# Columns that are named where another is missing.
_NAMED = 20


def document(
  name: str, record: dict[str, Any], text_key: str, table: bool = False
) -> Document | Bad:
  """A record with its text apart.

  An empty `text_key` names no field: the text is "" then, as it is where a
  table has nothing in it.
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
  """Why a value cannot be written as JSON in UTF-8, or ""."""
  if isinstance(value, str):
    if not value.isascii():
      try:
        value.encode()
      except UnicodeEncodeError:  # Half of a pair, as JSON can spell it.
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
