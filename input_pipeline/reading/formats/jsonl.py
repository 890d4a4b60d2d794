"""Reads JSON Lines as documents."""

import json
from collections.abc import Iterator

from input_pipeline.bad_records import Policy, check_size
from input_pipeline.document import Bad, Document
from input_pipeline.reading import records
from input_pipeline.reading.streams import bad, lines, opened
from input_pipeline.reading.text_options import Options
from input_pipeline.reading.utf8 import decode, flaw

SETTINGS = ("encoding",)


def read(
  path: str,
  *,
  text_key: str,
  policy: Policy,
  name: str = "",
  options: Options = Options(),
) -> Iterator[Document | Bad]:
  """Yields one document per line, with the id "FILE:line number".

  name: the name of the file in ids and errors; "" for its path.
  options: the encoding.
  """
  name = name or path
  try:
    with opened(path) as stream:
      for line in lines(stream, policy.max_record_bytes):
        record = f"{name}:{line.number}"
        try:
          check_size(line.size, record, policy)
          found = parse(record, line.content or b"", options.encoding)
          yield records.document(record, found, text_key)
        except ValueError as error:
          yield bad(record, error)
  except ValueError as error:
    yield bad(name, error, path)


def parse(name: str, line: bytes, encoding: str = "utf-8") -> dict:
  """The object in a line; ValueError if there is none."""
  text = line if encoding == "utf-8" else decode(name, line, encoding)
  try:
    record = json.loads(text)
  except RecursionError:
    raise ValueError(f"{name}: nested too deeply") from None
  except UnicodeDecodeError as error:
    said = flaw(line, error, encoding)
    raise ValueError(f"{name}: not JSON: {said}") from None
  except ValueError as error:
    raise ValueError(f"{name}: not JSON: {error}") from None
  if not isinstance(record, dict):
    raise ValueError(f"{name}: not a JSON object")
  return record
