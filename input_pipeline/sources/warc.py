"""warc:GLOB, each HTML response of a web archive."""

from input_pipeline.bad_records import Policy
from input_pipeline.reading import web_archive
from input_pipeline.sources import Source
from input_pipeline.sources.parts import archive


def warc(pattern: str, policy: Policy = Policy()) -> dict[str, Source]:
  """warc:GLOB, each response with status 200 that is HTML a record.

  "html" its bytes; "url", "date" and "mime" as its headers say. A .gz file of
  a member for each record is read where it lies; one of many records in a
  member, and a .zst file, is held in memory. A file that cannot be read to its
  end is an error; under "skip" its end is one bad record.
  """
  uri = f"warc:{pattern}"
  return archive.records(uri, "html", "response", web_archive.page, policy)
