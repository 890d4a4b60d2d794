"""The HTML pages of WARC files, from which the text is yet to be taken."""

from collections.abc import Iterator

from input_pipeline.bad_records import Policy
from input_pipeline.document import Bad, Document
from input_pipeline.reading import web_archive

NEEDS = "warcio"


def read(
  path: str, *, text_key: str, policy: Policy, name: str = ""
) -> Iterator[Document | Bad]:
  """A document of each response with status 200 that is HTML.

  Its id is "FILE#n", the n-th record of the file. Other records are passed
  over. Beside it stand its "url", "date" and "mime".

  text_key: of no account.
  name: what the file is called; "" for its path.
  """
  return web_archive.documents(path, "response", web_archive.page, policy, name)
