"""Reads HTML files as documents whose text is extracted later."""

import posixpath
from collections.abc import Iterator

from input_pipeline.bad_records import Policy
from input_pipeline.document import Bad, Document
from input_pipeline.reading.streams import bad, whole


def read(
  path: str, *, text_key: str, policy: Policy, name: str = ""
) -> Iterator[Document | Bad]:
  """Yields the page as one document without text; its id is the name.

  text_key: not used.
  name: the name of the file in ids and errors; "" for its path.
  """
  name = name or path
  try:
    html = whole(path, policy)
  except ValueError as error:
    yield bad(name, error, path)
    return
  yield Document(name, "", {"file": posixpath.basename(name)}, html)
