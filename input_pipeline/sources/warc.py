"""warc:GLOB: each HTML response of a web archive."""

from input_pipeline.bad_records import Policy
from input_pipeline.reading import web_archive
from input_pipeline.sources import Source
from input_pipeline.sources.parts import archive


def warc(pattern: str, policy: Policy = Policy()) -> dict[str, Source]:
  """warc:GLOB: a record per HTML response with status 200.

  "html" has its bytes; "url", "date" and "mime" are from its headers, and so is
  "charset", the encoding that HTTP declares, or "". A .gz file with one member
  per record is read in place; one with several records in a member, and a .zst
  file, is held in memory. A file that cannot be read to its end is an error;
  under "skip" its end is one bad record.
  """
  uri = f"warc:{pattern}"
  return archive.records(uri, "html", "response", web_archive.page, policy)
