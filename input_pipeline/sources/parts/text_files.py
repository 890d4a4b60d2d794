"""Text files as the documents of a source."""

import numpy as np

from input_pipeline.bad_records import Policy
from input_pipeline.reading.columns import strings
from input_pipeline.reading.paths import fingerprint
from input_pipeline.reading.text_options import Options
from input_pipeline.reading.utf8 import read_text
from input_pipeline.sources import Source


def documents(
  paths: list[str], policy: Policy, options: Options = Options()
) -> dict[str, Source]:
  """Returns one document per file, with its text unchanged to the byte."""

  def read(indices: np.ndarray) -> dict[str, np.ndarray]:
    encoding = options.encoding
    texts = [read_text(paths[i], policy, encoding) for i in indices]
    return {"text": strings(texts)}

  return {
    "all": Source(
      length=len(paths),
      read=read,
      name=lambda index: paths[index],
      fingerprint=fingerprint(paths, options),
    )
  }
