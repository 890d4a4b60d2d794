"""Hashes of texts that are the same on every machine and in every run."""

import json

from input_pipeline.preparation.document import Document

NORMAL_FORMS = ("none", "whitespace", "case+whitespace")
_HALF = (1 << 64) - 1


def normal_form(text: str, form: str) -> str:
  """The text without the differences that a form of NORMAL_FORMS ignores."""
  if form == "none":
    return text
  text = " ".join(text.split())
  return text.casefold() if form == "case+whitespace" else text


def text_hash(text: str, form: str = "none") -> tuple[int, int]:
  """128 bits of xxHash (XXH3) of a text's normal form, as two halves."""
  import xxhash

  data = normal_form(text, form).encode("utf-8", "surrogatepass")
  value = xxhash.xxh3_128_intdigest(data)
  return value >> 64, value & _HALF


def record(document: Document) -> str:
  """The text and all fields as one text, in the order of their names."""
  fields = dict(document.fields)
  return json.dumps([document.text, fields], sort_keys=True)
