"""text:GLOB: each file is a document."""

import os

from input_pipeline.bad_records import Policy
from input_pipeline.reading import text_options
from input_pipeline.reading.paths import find_files
from input_pipeline.sources import Source
from input_pipeline.sources.parts.text_files import documents


def text(rest: str, policy: Policy = Policy()) -> dict[str, Source]:
  """text:GLOB: each matching file is a document; a note counts empty files.

  text:GLOB?encoding=NAME: files in another encoding than UTF-8, such as gbk.
  """
  pattern, options = text_options.split(rest, "text")
  paths = find_files(pattern, f"text:{pattern}")
  natives = documents(paths, policy, options)
  empty = [p for p in paths if os.path.isfile(p) and not os.path.getsize(p)]
  if not empty:
    return natives
  note = f"{len(empty):,} of {len(paths):,} files are empty: {empty[0]}"
  note += ", …" if len(empty) > 1 else ""
  return {"all": natives["all"]._replace(note=f"text:{pattern}: {note}")}
