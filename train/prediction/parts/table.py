"""Records as lines of JSON or as a table."""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from typing import Any

from common.errors import UserError

ENDINGS = (".jsonl", ".csv")


def lines(records: Iterable[dict[str, Any]], path: str) -> Iterator[bytes]:
  """Yields the content of a file whose ending is one of ENDINGS.

  The header of a table has the keys of the first record; lists in its cells are
  JSON.

  Raises:
    UserError: the path has another ending.
  """
  if not path.lower().endswith(ENDINGS):
    raise UserError(f"--output={path}: write a file {' or '.join(ENDINGS)}")
  write = _csv if path.lower().endswith(".csv") else jsonl
  return write(records)


def jsonl(records: Iterable[dict[str, Any]]) -> Iterator[bytes]:
  """Yields one line of JSON for each record."""
  for record in records:
    yield f"{_json(record)}\n".encode(errors="backslashreplace")


def _csv(records: Iterable[dict[str, Any]]) -> Iterator[bytes]:
  for number, record in enumerate(records):
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    if not number:
      rows.writerow(record)
    rows.writerow(
      _json(v) if isinstance(v, (list, dict)) else v for v in record.values()
    )
    yield text.getvalue().encode(errors="backslashreplace")


def _json(value: Any) -> str:
  return json.dumps(value, ensure_ascii=False)
