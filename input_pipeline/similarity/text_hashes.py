"""Hashes of texts that are equal on every machine and in every run."""

import importlib
import json
from types import ModuleType

from input_pipeline.document import Document

NORMAL_FORMS = ("none", "whitespace", "case+whitespace")
_HALF = (1 << 64) - 1


def library(name: str) -> ModuleType:
  """A library of the extras `clean` and `judge`, imported where it is used.

  Raises:
    ValueError: it is not installed.
  """
  try:
    return importlib.import_module(name)
  except ImportError as error:
    raise ValueError(
      f"comparing texts needs {name}, which is not installed: pip install"
      " -e '.[clean]'"
    ) from error


def normal_form(text: str, form: str) -> str:
  """The text in one of NORMAL_FORMS."""
  if form == "none":
    return text
  text = " ".join(text.split())
  return text.casefold() if form == "case+whitespace" else text


def text_hash(text: str, form: str = "none") -> tuple[int, int]:
  """The 128-bit XXH3 hash of a text's normal form, as two integers."""
  data = normal_form(text, form).encode("utf-8", "surrogatepass")
  value = library("xxhash").xxh3_128_intdigest(data)
  return value >> 64, value & _HALF


def record(document: Document) -> str:
  """The text and all fields as JSON, ordered by name."""
  fields = dict(document.fields)
  return json.dumps([document.text, fields], sort_keys=True)
