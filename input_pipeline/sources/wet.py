"""wet:GLOB: each conversion record of a web archive."""

from input_pipeline.bad_records import Policy
from input_pipeline.reading import web_archive
from input_pipeline.sources import Source
from input_pipeline.sources.parts import archive


def wet(pattern: str, policy: Policy = Policy()) -> dict[str, Source]:
  """wet:GLOB: a record per conversion record: "text", the rest as in warc:."""
  uri = f"wet:{pattern}"
  return archive.records(
    uri, "text", "conversion", web_archive.conversion, policy
  )
