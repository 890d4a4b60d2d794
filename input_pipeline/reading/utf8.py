"""Decodes text files, which are UTF-8 unless the source names an encoding."""

from input_pipeline.bad_records import Policy
from input_pipeline.reading import bounded, encoding_guess


def flaw(content: bytes, error: UnicodeDecodeError, encoding: str) -> str:
  """What is wrong with a text that is not in an encoding."""
  if encoding != "utf-8":
    return f"not {encoding} at byte {error.start}"
  return f"not UTF-8 at byte {error.start}{encoding_guess.said(content)}"


def decode(path: str, content: bytes, encoding: str = "utf-8") -> str:
  """The text of a file; ValueError if it is not in the encoding."""
  try:
    return content.decode(encoding)
  except UnicodeDecodeError as error:
    raise ValueError(f"{path}: {flaw(content, error, encoding)}") from None


def read_text(path: str, policy: Policy, encoding: str = "utf-8") -> str:
  """The text of a file; ValueError if it is too large or cannot be decoded."""
  return decode(path, bounded.read_file(path, policy), encoding)
