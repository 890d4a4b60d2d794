"""Reads the texts of WET files."""

from collections.abc import Iterator

from input_pipeline.bad_records import Policy
from input_pipeline.document import Bad, Document
from input_pipeline.reading import web_archive

NEEDS = "warcio"


def read(
  path: str, *, text_key: str, policy: Policy, name: str = ""
) -> Iterator[Document | Bad]:
  """Yields one document per conversion record.

  Its id is "FILE#n" for the n-th record of the file, and its fields are "url",
  "date" and "mime". Other records are skipped.

  text_key: not used.
  name: the name of the file in ids and errors; "" for its path.
  """
  return web_archive.documents(
    path, "conversion", web_archive.conversion, policy, name
  )
