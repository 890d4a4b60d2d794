"""Text files, each a document."""

from collections.abc import Iterator

from input_pipeline.bad_records import Policy
from input_pipeline.document import Bad, Document
from input_pipeline.reading.streams import bad, whole
from input_pipeline.reading.utf8 import decode


def read(
  path: str, *, text_key: str, policy: Policy, name: str = ""
) -> Iterator[Document | Bad]:
  """The file as one document, its text unchanged; its name is the id.

  text_key: of no account.
  name: what the file is called; "" for its path.
  """
  name = name or path
  try:
    yield Document(name, decode(path, whole(path, policy)))
  except ValueError as error:
    yield bad(name, error, path)
