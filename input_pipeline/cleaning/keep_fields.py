"""Removal of fields that are not needed: data minimisation, as in the GDPR."""

import functools
from collections.abc import Sequence

from input_pipeline.document import Document, Stage


def keep_fields(fields: Sequence[str]) -> Stage:
  """A stage that keeps only the given fields, in their original order.

  Raises:
    ValueError: `fields` is a string instead of a list of names.
  """
  if isinstance(fields, str):
    raise ValueError(f"keep_fields: fields={fields!r} is not a list of names")
  return functools.partial(_keep, frozenset(fields))


def _keep(names: frozenset[str], document: Document) -> Document:
  fields = {k: v for k, v in document.fields.items() if k in names}
  return document._replace(fields=fields)
