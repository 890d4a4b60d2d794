"""The pages of a source as text, for the checks of texts."""

import numpy as np

from input_pipeline import charset
from input_pipeline.sources import Source


def as_text(source: Source) -> Source:
  """The source with its field "html", if it is bytes, decoded to text.

  Two pages that differ in their encoding alone become equal. Where nothing
  declares the encoding, bytes that are not UTF-8 become U+FFFD.
  """

  def read(indices: np.ndarray) -> dict[str, np.ndarray]:
    rows = source.read(indices)
    pages = rows.get("html")
    if pages is None or not any(isinstance(each, bytes) for each in pages):
      return rows
    labels = rows.get("charset", [""] * len(pages))
    texts = np.empty(len(pages), object)
    for i, (page, label) in enumerate(zip(pages, labels, strict=True)):
      texts[i] = page
      if isinstance(page, bytes):
        found = charset.page(page, label if isinstance(label, str) else "")
        texts[i] = page.decode(errors="replace") if found is None else found
    return {**rows, "html": texts}

  return source._replace(read=read)
