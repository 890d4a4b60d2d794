"""JSON Lines as documents."""

from collections.abc import Iterator

from input_pipeline import source_jsonl
from input_pipeline.bad_records import Policy, check_size
from input_pipeline.preparation.document import Bad, Document
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
          found = source_jsonl.parse(record, line.content or b"")
          yield records.document(record, found, text_key)
        except ValueError as error:
          yield bad(record, error)
  except ValueError as error:
    yield bad(name, error, path)
