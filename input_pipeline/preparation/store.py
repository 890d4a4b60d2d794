"""Documents on disk between two passes, as compressed JSON lines."""

import base64
import contextlib
import io
import json
from collections.abc import Callable, Iterator
from typing import NamedTuple

from input_pipeline.document import Document
from input_pipeline.reading import files


class Stored(NamedTuple):
  """A document and the counts of the stages so far."""

  document: Document
  counts: dict[str, int]


@contextlib.contextmanager
def writing(path: str) -> Iterator[Callable[[Stored], None]]:
  """Yields a function that adds documents to a file, written as a whole."""
  import zstandard

  packer = zstandard.ZstdCompressor(level=3).compressobj()
  with files.writing(path) as file:
    yield lambda stored: file.write(packer.compress(_line(stored)))
    file.write(packer.flush())


def read(path: str) -> Iterator[Stored]:
  """The documents of a file, in order."""
  import zstandard

  unpacker = zstandard.ZstdDecompressor()
  with files.opened(path) as file, unpacker.stream_reader(file) as stream:
    for line in io.BufferedReader(stream, 2**20):
      record = json.loads(line)
      document = Document(
        record["id"],
        record["text"],
        record["fields"],
        base64.b64decode(record.get("html", "")),
      )
      yield Stored(document, record["counts"])


def _line(stored: Stored) -> bytes:
  document = stored.document
  record = {
    "id": document.id,
    "text": document.text,
    "fields": dict(document.fields),
    "counts": stored.counts,
  }
  if document.html:
    record["html"] = base64.b64encode(document.html).decode()
  return to_json(record) + b"\n"


def to_json(value: object) -> bytes:
  """JSON of one line in UTF-8; text with lone surrogates is escaped."""
  text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
  try:
    return text.encode()
  except UnicodeEncodeError:  # A lone surrogate.
    return json.dumps(value, separators=(",", ":")).encode()
