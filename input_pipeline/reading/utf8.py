"""Decodes text files, which must be UTF-8."""

from input_pipeline.bad_records import Policy
from input_pipeline.reading import bounded


def decode(path: str, content: bytes) -> str:
  """The text of a file; ValueError if it is not UTF-8."""
  try:
    return content.decode("utf-8")
  except UnicodeDecodeError as error:
    raise ValueError(f"{path}: not UTF-8 at byte {error.start}") from None


def read_text(path: str, policy: Policy) -> str:
  """The text of a file; ValueError if it is too large or not UTF-8."""
  return decode(path, bounded.read_file(path, policy))
