"""HTML files, each a document from which the text is yet to be taken."""

import posixpath
from collections.abc import Iterator

from input_pipeline.bad_records import Policy
from input_pipeline.document import Bad, Document
from input_pipeline.reading.streams import bad, whole


def read(
  path: str, *, text_key: str, policy: Policy, name: str = ""
) -> Iterator[Document | Bad]:
  """The page as one document without text; its name is the id.

  text_key: of no account.
  name: what the file is called; "" for its path.
  """
  name = name or path
  try:
    html = whole(path, policy)
  except ValueError as error:
    yield bad(name, error, path)
    return
  yield Document(name, "", {"file": posixpath.basename(name)}, html)
