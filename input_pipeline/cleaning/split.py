"""Documents given to splits by a hash: no draw, no state, no order."""

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
  """fields["split"]: which split a document is in, by a hash of `by`.

  Equal values share a split, so that a text, a site or a group is never in
  two. Documents that are added move none of those that were there.

  Args:
    fractions: {split: its share of the values}; dict(validation=0.01,
      test=0.01) if not given.
    by: "text", "id", "record" (text and all fields), a field's
      name, or "host:FIELD": the host of the URL in that field.
    salt: another salt, another split.
    rest: the name of the split of all others.

  Raises:
    ValueError: shares that are not within 0 and 1 together. When it runs: a
      document without that field; it names both.
  """
  if fractions is None:
    fractions = dict(validation=0.01, test=0.01)
  if rest in fractions:
    raise ValueError(f"split: fractions: {rest!r} is the name of the rest")
  bounds, total = [], 0.0
  for name, fraction in fractions.items():
    if not 0 <= fraction <= 1:
      raise ValueError(f"split: fractions: {name}={fraction} is not in [0, 1]")
    total += fraction
    bounds.append((total, name))
  if total > 1 + 1e-9:
    raise ValueError(f"split: fractions: they add up to {total:g}, above 1")
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
