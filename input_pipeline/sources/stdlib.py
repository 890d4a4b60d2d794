"""stdlib:, the source of Python's own library."""

from input_pipeline.bad_records import Policy
from input_pipeline.reading.formats import stdlib as stdlib_source
from input_pipeline.sources import Source
from input_pipeline.sources.parts.text_files import documents


def stdlib(rest: str, policy: Policy = Policy()) -> dict[str, Source]:
  """stdlib:, the source of Python's own library, tests left out.

  About 10 MB of text that every machine has. A file that cannot be read as
  UTF-8 is left out.
  """
  if rest:
    raise ValueError(f"stdlib:{rest}: stdlib: takes no arguments")
  return documents(stdlib_source.files(), policy)
