"""JSON Lines as documents."""

import json
from collections.abc import Iterator

from input_pipeline.bad_records import Policy, check_size
from input_pipeline.document import Bad, Document
from input_pipeline.reading import records
from input_pipeline.reading.streams import bad, lines, opened


def read(
  path: str, *, text_key: str, policy: Policy, name: str = ""
) -> Iterator[Document | Bad]:
  """A document of each line, "FILE:line number" its id.

  name: what the file is called; "" for its path.
  """
  name = name or path
  try:
    with opened(path) as stream:
      for line in lines(stream, policy.max_record_bytes):
        record = f"{name}:{line.number}"
        try:
          check_size(line.size, record, policy)
          found = parse(record, line.content or b"")
          yield records.document(record, found, text_key)
        except ValueError as error:
          yield bad(record, error)
  except ValueError as error:
    yield bad(name, error, path)


def parse(name: str, line: bytes) -> dict:
  """The object that a line holds; ValueError where it holds none."""
  try:
    record = json.loads(line)
  except RecursionError:
    raise ValueError(f"{name}: nested too deeply") from None
  except ValueError as error:
    raise ValueError(f"{name}: not JSON: {error}") from None
  if not isinstance(record, dict):
    raise ValueError(f"{name}: not a JSON object")
  return record
