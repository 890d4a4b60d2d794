"""Only the fields that are needed: what GDPR calls minimisation."""

import functools
from collections.abc import Sequence

from input_pipeline.document import Document, Stage


def keep_fields(fields: Sequence[str]) -> Stage:
  """The document with these fields alone, in its own order.

  Raises:
    ValueError: `fields` is a text and not a list of names.
  """
  if isinstance(fields, str):
    raise ValueError(f"keep_fields: fields: {fields!r} is no list of names")
  return functools.partial(_keep, frozenset(fields))


def _keep(names: frozenset[str], document: Document) -> Document:
  fields = {k: v for k, v in document.fields.items() if k in names}
  return document._replace(fields=fields)
