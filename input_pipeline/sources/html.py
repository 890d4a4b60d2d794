"""html:GLOB, each page a record."""

import numpy as np

from input_pipeline.bad_records import Policy
from input_pipeline.document import Bad
from input_pipeline.reading.columns import strings
from input_pipeline.reading.formats import html as pages
from input_pipeline.reading.paths import find_files, fingerprint
from input_pipeline.sources import Source


def html(pattern: str, policy: Policy = Policy()) -> dict[str, Source]:
  """html:GLOB, each page a record: "html" its bytes, "file" its name."""
  paths = find_files(pattern, f"html:{pattern}")

  def read(indices: np.ndarray) -> dict[str, np.ndarray]:
    found = []
    for index in indices:
      (page,) = pages.read(paths[index], text_key="", policy=policy)
      if isinstance(page, Bad):
        raise ValueError(page.reason)
      found.append(page)
    return {
      "html": strings([page.html for page in found]),
      "file": strings([page.fields["file"] for page in found]),
    }

  name = paths.__getitem__
  source = Source(len(paths), read, name, fingerprint=fingerprint(paths))
  return {"all": source}
