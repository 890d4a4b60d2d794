"""Reads text files, each as one document."""

from collections.abc import Iterator

from input_pipeline.bad_records import Policy
from input_pipeline.document import Bad, Document
from input_pipeline.reading.streams import bad, whole
from input_pipeline.reading.text_options import Options
from input_pipeline.reading.utf8 import decode

SETTINGS = ("encoding",)


def read(
  path: str,
  *,
  text_key: str,
  policy: Policy,
  name: str = "",
  options: Options = Options(),
) -> Iterator[Document | Bad]:
  """Yields the file as one document; its id is the name.

  text_key: not used.
  name: the name of the file in ids and errors; "" for its path.
  options: the encoding.
  """
  name = name or path
  try:
    yield Document(name, decode(path, whole(path, policy), options.encoding))
  except ValueError as error:
    yield bad(name, error, path)
