"""Assignment of documents to splits by a hash, independent of their order."""

import functools
from collections.abc import Mapping
from urllib.parse import urlsplit

from input_pipeline.document import Document, Stage
from input_pipeline.similarity.text_hashes import record, text_hash

_WHOLE = float(2**64)


def split(
  fractions: Mapping[str, float] | None = None,
  by: str = "text",
  salt: str = "",
  rest: str = "train",
) -> Stage:
  """A stage that sets fields["split"] by a hash of the value named by `by`.

  Equal values are assigned to the same split, so that a text, a site or a group
  is never in two splits. Adding documents does not move others.

  Args:
    fractions: {split: its share of the values}. Default:
      dict(validation=0.01, test=0.01).
    by: "text", "id", "record" (text and all fields), the name of a field, or
      "host:FIELD" for the host of the URL in that field.
    salt: a string that changes the assignment.
    rest: the name of the split of the remaining documents.

  Raises:
    ValueError: the fractions are not from 0 to 1, or add up to more than 1;
      when the stage runs, a document without the field.
  """
  if fractions is None:
    fractions = dict(validation=0.01, test=0.01)
  if rest in fractions:
    raise ValueError(
      f"split: fractions has {rest!r}, which is the name of the rest"
    )
  bounds, total = [], 0.0
  for name, fraction in fractions.items():
    if not 0 <= fraction <= 1:
      raise ValueError(
        f"split: fractions: {name}={fraction} is not from 0 to 1"
      )
    total += fraction
    bounds.append((total, name))
  if total > 1 + 1e-9:
    raise ValueError(
      f"split: fractions add up to {total:g}, which is more than 1"
    )
  return functools.partial(_split, tuple(bounds), by, salt, rest)


def _split(
  bounds: tuple[tuple[float, str], ...],
  by: str,
  salt: str,
  rest: str,
  document: Document,
) -> Document:
  value = _value(document, by)
  point = text_hash(f"{salt}\0{value}")[0] / _WHOLE
  name = next((name for bound, name in bounds if point < bound), rest)
  return document._replace(fields={**document.fields, "split": name})


def _value(document: Document, by: str) -> str:
  if by in ("text", "id"):
    return getattr(document, by)
  if by == "record":
    return record(document)
  field = by.removeprefix("host:")
  value = document.fields.get(field)
  if value is None:
    raise ValueError(f"split: document {document.id!r} has no field {field!r}")
  if field == by:
    return str(value)
  try:
    host = urlsplit(str(value)).hostname
  except ValueError:
    host = None
  if not host:
    raise ValueError(
      f"split: document {document.id!r}: {field}={value!r} has no host"
    )
  return host.removeprefix("www.")
